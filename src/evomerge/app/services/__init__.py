"""What the endpoints do: plain functions over a context, knowing nothing of HTTP."""
