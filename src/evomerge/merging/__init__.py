"""Realise candidates: arrays and tensors in, arrays and tensors out."""
