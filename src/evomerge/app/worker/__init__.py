"""Runs jobs: claims one at a time, keeps its lease, searches, proves, stores."""
