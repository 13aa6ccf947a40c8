"""LoRA experts: read, stack, sparsify, combine, store. The only merging rooms that need torch."""
