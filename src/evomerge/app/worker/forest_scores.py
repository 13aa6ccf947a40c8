"""What the models of a forest have on one domain. Needs torch.

The prior is estimated on development documents alone; test documents are read afterwards, and
nothing that was chosen depends on them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from evomerge.app.schemas.forest_inputs import ElmInput
from evomerge.app.schemas.forest_specs import EvaluateSpec
from evomerge.app.worker.forest_parts import Parts
from evomerge.app.worker.forest_reading import Reading
from evomerge.app.worker.forest_report import finite, stacked
from evomerge.app.worker.ledger import Note
from evomerge.connectors.local.forest.routing import Routing
from evomerge.connectors.local.rows import Row
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.checkpoint.average import average
from evomerge.merging.forest.averages import argmax, uniform
from evomerge.merging.forest.ensemble import mixture, score
from evomerge.merging.forest.prior import Prior, estimate
from evomerge.merging.forest.top_k import keep_top

_SEED, _WHOLE = "seed", ("ensemble:all", "router:all")
_ALL = _WHOLE[0]


@dataclass(frozen=True)
class Routed:
    """Which of the ELMs a router leads to, in their order, and how."""

    places: tuple[int, ...]
    routing: Routing


@dataclass(frozen=True, eq=False)
class DomainScores:
    """What each model has on the test documents of a domain.

    Attributes:
        parts: what was read.
        prior: of the ELMs, by name, from development documents.
        tokens: scored, of each test document, (documents,).
        losses: by model, nats of each test document, (documents,).
    """

    parts: Parts
    prior: dict[str, float]
    tokens: FloatArray
    losses: dict[str, FloatArray]

    def note(self) -> Note:
        """The event of a domain that is done."""
        means = {
            model: finite(float(np.exp(losses.sum() / self.tokens.sum())))
            for model, losses in self.losses.items()
        }
        shown = ", ".join(
            f"{model} {math.nan if means[model] is None else means[model]:.4g}"
            for model in (_SEED, *_WHOLE)
            if model in means
        )
        data = {"domain": self.parts.domain, "perplexity": means, "prior": self.prior}
        return Note(f"domain {self.parts.domain}: {shown}", type="metrics", data=data)


class Scorer:
    """Reads domains by all models that a job is about.

    Args:
        spec: of the job.
        models: the seed first, then the ELMs, each under a name of its own.
        reading: of these models.
        scratch: where averages are written.
        routed: what the forest's router says, where it is asked.
    """

    def __init__(
        self,
        spec: EvaluateSpec,
        models: Sequence[ElmInput],
        reading: Reading,
        scratch: Path,
        routed: Routed | None = None,
    ) -> None:
        self._spec = spec
        self._seed, *self._elms = models
        self._reading = reading
        self._scratch = scratch
        self._routed = routed

    def score(self, parts: Parts) -> DomainScores:
        """One domain, by all models.

        Raises:
            StoppedError: a stop was asked for.
            BudgetReachedError: the budget allows no more; the domain is not whole.
            ConnectorError, MergingError, ForestError: a model cannot be read.
        """
        prior = self._prior(parts.dev)
        rows = self._reading.rows(parts.test)
        seed = self._reading.read(self._seed.name, rows)
        alone = [self._reading.read(elm.name, rows) for elm in self._elms]
        losses = {_SEED: _losses(seed)}
        losses |= {
            f"elm:{elm.name}": _losses(own) for elm, own in zip(self._elms, alone, strict=True)
        }
        if "posterior" in self._spec.weightings:
            losses |= self._ensembles(alone, prior)
        if self._routed is not None:
            losses |= self._routes(self._routed, alone, rows)
        losses |= self._averages(parts.domain, rows, prior, losses)
        names = [elm.name for elm in self._elms]
        return DomainScores(
            parts,
            dict(zip(names, map(float, prior), strict=True)),
            np.array([len(own) for own in seed], dtype=np.float64),
            losses,
        )

    def _prior(self, dev: Sequence[str]) -> FloatArray:
        rows = self._reading.rows(dev)
        read = [self._reading.read(elm.name, rows) for elm in self._elms]
        asked = self._spec.prior
        return estimate(stacked(read), asked.weight, asked.documents)

    def _ensembles(
        self, alone: Sequence[Sequence[FloatArray]], prior: FloatArray
    ) -> dict[str, FloatArray]:
        """Mixtures of what the ELMs gave already: they cost no forward."""
        texts = stacked(alone)
        log_prior = Prior.cached(prior).log
        sizes = {f"ensemble:top-{k}": k for k in self._spec.top_k if k < len(self._elms)}
        found = {}
        for name, k in [*sizes.items(), (_ALL, None)]:
            mixed = [score(text, log_prior, history=self._spec.history, top_k=k) for text in texts]
            found[name] = _losses(mixed)
        return found

    def _routes(
        self, routed: Routed, alone: Sequence[Sequence[FloatArray]], rows: Sequence[Row]
    ) -> dict[str, FloatArray]:
        """Mixtures of the ELMs of clusters, weighed by the router."""
        texts = stacked([alone[place] for place in routed.places])
        weights = self._reading.routed(routed.routing, rows)
        sizes = {f"router:top-{k}": k for k in self._spec.top_k if k < len(routed.places)}
        return {
            name: _losses(
                [
                    mixture(text, keep_top(of_text, k))
                    for text, of_text in zip(texts, weights, strict=True)
                ]
            )
            for name, k in [*sizes.items(), ("router:all", None)]
        }

    def _averages(
        self, domain: str, rows: Sequence[Row], prior: FloatArray, known: dict[str, FloatArray]
    ) -> dict[str, FloatArray]:
        found = {}
        for kind in self._spec.averages:
            if kind == "argmax":
                best = self._elms[int(argmax(prior).argmax())]
                found["average:argmax"] = known[f"elm:{best.name}"]
            elif kind == "uniform":
                folder = self._average("average-uniform", uniform(len(self._elms)))
                found["average:uniform"] = _losses(self._reading.read_folder(folder, rows))
            else:
                # Another one for each domain, so that only the last is kept.
                folder = self._average("average-posterior", prior, anew=True)
                found["average:posterior"] = _losses(self._reading.read_folder(folder, rows))
        return found

    def _average(self, name: str, weights: FloatArray, *, anew: bool = False) -> Path:
        folder = self._scratch / name
        if anew or not folder.is_dir():
            self._reading.tell(stage="averaging")
            average([elm.path for elm in self._elms], weights, folder)
            self._reading.tell(stage="reading")
        return folder


def _losses(read: Sequence[FloatArray]) -> FloatArray:
    """Nats of each text, (texts,), of log-probabilities (T,)."""
    return np.array([-float(own.sum()) for own in read])
