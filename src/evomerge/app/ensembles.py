"""How the ELMs of a forest speak together: what is kept of it, and what ELMs that come and go do.

A forest's row holds these settings. Whoever adds or removes an ELM changes them in the same
transaction, so that the prior sums to one and names ELMs that are there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from evomerge.merging.forest.posterior import History
from evomerge.merging.forest.prior import PriorMode
from evomerge.merging.forest.top_k import TopKKind

# What weighs ELMs: how well each foretold the text so far, or the clusters of its words.
Weighting = Literal["posterior", "router"]


@dataclass(frozen=True)
class StoredRouter:
    """The router of a forest, as its row holds it.

    Attributes:
        job_id: of the job that fitted it, whose folder holds it.
        content_hash: SHA-256 of its files.
        clusters: content hash of each cluster's corpus, in order. An ELM is a cluster's whose
            lineage names this corpus.
    """

    job_id: str
    content_hash: str
    clusters: tuple[str, ...]

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> StoredRouter:
        """The router that a forest's row holds."""
        return cls(**{**stored, "clusters": tuple(stored["clusters"])})

    def cluster_of(self, corpus_hash: str | None) -> int | None:
        """The cluster whose corpus an ELM was trained on, if it was."""
        if corpus_hash is None or corpus_hash not in self.clusters:
            return None
        return self.clusters.index(corpus_hash)


@dataclass(frozen=True)
class Ensemble:
    """The settings of a forest's ensemble.

    Attributes:
        mode: where the prior comes from: `cached` as it stands here, `updating` from text to
            text out of it, `uniform` without it.
        prior: what each ELM weighs before a text, by its name; sums to one. ELMs that it leaves
            out weigh nothing. None weighs all the same.
        history: what the posterior reads: all tokens before, or the last one alone (as the
            released BTM code).
        top_k: how many ELMs speak at most; None for all.
        top_k_kind: whether those are chosen once by the prior, or at each token.
        weighting: what weighs the ELMs. Where the router does, those of its clusters speak alone,
            and prior, mode and history say nothing.
        router: of the last clustering; None before any.
    """

    mode: PriorMode = "cached"
    prior: Mapping[str, float] | None = None
    history: History = "full"
    top_k: int | None = None
    top_k_kind: TopKKind = "token"
    weighting: Weighting = "posterior"
    router: StoredRouter | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Ensemble:
        """The settings that a forest's row holds."""
        router = stored.get("router")
        return cls(**{**stored, "router": None if router is None else StoredRouter.of(router)})

    def stored(self) -> dict[str, Any]:
        """What a forest's row is to hold."""
        router = None if self.router is None else asdict(self.router)
        if router is not None:
            router["clusters"] = list(router["clusters"])
        return {**self.settings(), "router": router}

    def settings(self) -> dict[str, Any]:
        """What a request can set: all but the router, which a job makes."""
        fields = asdict(self)
        del fields["router"]
        return {**fields, "prior": None if self.prior is None else dict(self.prior)}

    def weights(self, names: Sequence[str]) -> list[float]:
        """What each of the ELMs weighs before a text, in their order; sums to one."""
        if self.prior is None or self.mode == "uniform":
            return [1 / len(names)] * len(names)
        return [self.prior.get(name, 0.0) for name in names]

    def with_elm(self, name: str, elms: int) -> Ensemble:
        """The settings once an ELM has come.

        It weighs one part in all of them, as a prior does that knows nothing of it; the others
        keep their ratios. So adding an ELM and removing it again changes nothing.

        Args:
            elms: how many there are with it.
        """
        if self.prior is None:
            return self
        rest = {other: weight * (elms - 1) / elms for other, weight in self.prior.items()}
        return replace(self, prior={**rest, name: 1 / elms})

    def without_elm(self, name: str, elms: int) -> Ensemble:
        """The settings once an ELM has gone: the others keep their ratios.

        A prior that had given it everything says nothing of the others and goes with it.

        Args:
            elms: how many are left; no more than these speak.
        """
        top_k = None if self.top_k is None else min(self.top_k, elms)
        return replace(self, prior=_without(self.prior, name), top_k=top_k)


def _without(prior: Mapping[str, float] | None, name: str) -> dict[str, float] | None:
    if prior is None:
        return None
    rest = {other: weight for other, weight in prior.items() if other != name}
    total = math.fsum(rest.values())
    if not total:
        return None
    return {other: weight / total for other, weight in rest.items()}
