"""The service: HTTP API, worker, database, command line."""
