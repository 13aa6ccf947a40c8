"""Forests as arithmetic: posteriors, priors, ensembles, averages and clusters. numpy only.

Words: n ELMs (expert language models) read a text of T tokens; `log_probs` (n, T) are what each
gave to the token that stands there, natural logarithms. Formulas are those of Branch-Train-Merge
(Li et al. 2022, arXiv 2208.03306), section 3, unless a module names another source.
"""
