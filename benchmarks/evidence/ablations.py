"""What each part of the search is worth: the paper's ablations, and ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.evidence.methods import BASE, DEFAULT, PAPER, Method, evo_merging
from benchmarks.evidence.settings import Case

from evomerge.app.schemas.presets import METHOD_PRESETS, Preset

WITHOUT_EITHER = "uniform"
# The paper's table 3, best first: what is left of the recipe, and its F1 there.
PAPER_ORDER = {
    PAPER: 52.13,
    "paper, without denoising": 40.94,
    "paper, beta >= 0": 40.06,
    "paper, without scaling": 24.27,
    "paper, without either": 20.75,
}


def ablations(case: Case, evaluations: int) -> Iterator[Method]:
    """Every variant with the same budget; what is left of one stage's goes to the other."""

    def variant(name: str, preset: Preset, *, job: Any = None, **changed: Any) -> Method:
        method = evo_merging(preset, evaluations, len(case.experts), changed)
        return Method(name, {"method": method, **(job or {})})

    def scaling(preset: Preset, **fields: Any) -> dict[str, Any]:
        return {"scaling": {**METHOD_PRESETS[preset]["scaling"], **fields}}

    yield variant(PAPER, "paper")
    yield variant("paper, without denoising", "paper", stages=["scaling"])
    yield variant("paper, beta >= 0", "paper", **scaling("paper", sign="nonnegative"))
    yield variant("paper, without scaling", "paper", stages=["denoising"])
    # What the factor composition makes of alpha 1 and beta 1/N.
    yield Method(
        "paper, without either",
        {"method": {"name": WITHOUT_EITHER}, "composition": "factor"},
    )
    yield variant("paper, exact", "paper", job={"composition": "exact"})
    paper = evo_merging("paper", evaluations, len(case.experts))
    yield Method("paper, reshuffled rows", {"method": paper}, reshuffled=True)
    yield variant(DEFAULT, "default")
    yield variant("default, without denoising", "default", stages=["scaling"])
    yield variant("default, beta >= 0", "default", **scaling("default", sign="nonnegative"))
    yield variant("default, factor", "default", job={"composition": "factor"})
    yield variant("default, over all experts", "default", top_k=None)
    yield variant("default, from best expert", "default", **scaling("default", start="best_expert"))
    yield variant("default, from uniform", "default", **scaling("default", start="uniform"))
    yield variant("default, from zeros", "default", **scaling("default", start="zeros"))
    yield variant("default, L1 of the paper", "default", **scaling("default", l1=0.05))
    yield variant("default, no L1", "default", **scaling("default", l1=0.0))
    yield variant("default, diagonal", "default", diagonal_above=1)
    yield variant("default, full covariance", "default", diagonal_above=100_000)
    default = evo_merging("default", evaluations, len(case.experts))
    yield Method("default, reshuffled rows", {"method": default}, reshuffled=True)
    yield from normalisations(len(case.experts))
    yield Method(BASE, {"method": {"name": BASE}})


def normalisations(experts: int) -> Iterator[Method]:
    """The plain sum of all experts at three scales, without a search."""
    for name, scale in (("1/N", 1 / experts), ("1/sqrt(N)", experts**-0.5), ("1", 1.0)):
        method = {"name": "task_arithmetic", "scales": [scale]}
        yield Method(f"all experts at {name}", {"method": method})
