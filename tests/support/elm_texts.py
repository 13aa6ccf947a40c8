"""What ELMs may have given to texts: log-probabilities to try forests' arithmetic on."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from evomerge.evaluation.objective import FloatArray


def log_probs_of(seed: int, elms: int, tokens: int, spread: float = 2.0) -> FloatArray:
    """(n, T): tokens of all difficulties, ELMs that differ by about `spread` nats."""
    random = np.random.default_rng(seed)
    common = random.gamma(1.5, 2.0, tokens)
    return -np.abs(common + random.normal(0, spread, (elms, tokens)))


def prior_of(seed: int, elms: int) -> FloatArray:
    """(n,) with sum 1."""
    return np.random.default_rng(seed).dirichlet(np.ones(elms))


@st.composite
def texts(draw: st.DrawFn, most_elms: int = 7, most_tokens: int = 40) -> FloatArray:
    """(n, T), some of them with impossible tokens."""
    elms = draw(st.integers(1, most_elms))
    tokens = draw(st.integers(1, most_tokens))
    log_probs = log_probs_of(draw(st.integers(0, 2**32)), elms, tokens, draw(st.floats(0, 50)))
    if draw(st.booleans()):
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        log_probs[random.random(log_probs.shape) < draw(st.floats(0, 0.3))] = -np.inf
    return log_probs


def priors(elms: int) -> st.SearchStrategy[FloatArray]:
    """(n,) with sum 1: of any skew, and with all weight on one."""
    spread = st.integers(0, 2**32).map(lambda seed: prior_of(seed, elms))
    return spread | st.integers(0, elms - 1).map(lambda only: np.eye(elms)[only])
