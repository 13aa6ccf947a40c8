"""Merges of task vectors by rule, without a search: the baselines of every report.

Every operator takes the task vectors of one tensor, stacked, and gives the merged one:
(N, ...) and (N,) weights in, (...) out, in the dtype of what came in. Nothing is kept between
tensors, so that a model is merged tensor by tensor; fractions are of each single tensor.
"""
