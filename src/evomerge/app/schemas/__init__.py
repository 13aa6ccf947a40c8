"""Pydantic models of what goes in and out; one model a thing, shared by HTTP, YAML and docs."""
