"""Whole checkpoints of one seed: read, hold apart, average and merge, one stretch at a time."""
