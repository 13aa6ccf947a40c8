"""All SQL of the service: functions that take a session and never commit."""
