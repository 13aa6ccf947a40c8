"""The output space: experts answer once, candidates are fused from their answers. numpy only."""
