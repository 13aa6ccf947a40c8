"""Merging rules over pools: what each expert adds to each tensor, merged tensor by tensor."""
