"""What "better" means: examples, splits, metrics, intervals."""
