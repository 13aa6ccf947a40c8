"""What the systems that are compared are called."""

from __future__ import annotations

from benchmarks.btm.plan import SHARE

TOP_K = (1, 2, 4)
SEED = f"seed of {SHARE:.0%}"
BEST = "best ELM of each domain's prior"
RANDOM = "random-split ensemble"


def ensemble(share: float = SHARE, top_k: int | None = None) -> str:
    """The name of a domain forest's ensemble."""
    return f"ensemble, seed share {share:.0%}" + (f", top {top_k}" if top_k else "")


def uniform_average(share: float = SHARE) -> str:
    """The name of a domain forest's uniform average."""
    return f"uniform average, seed share {share:.0%}"


def posterior_average(share: float = SHARE) -> str:
    """The name of the averages of a domain forest by each domain's prior."""
    return f"posterior average, seed share {share:.0%}"


def dense(number: int | None = None) -> str:
    """The name of the dense model of the first so many domains; of all by default."""
    return "dense" + (f", {number} domains" if number else "")


def ensemble_of(number: int) -> str:
    """The name of the ensemble of the first so many ELMs."""
    return f"ensemble, {number} domains"
