"""Where a branch starts (arXiv 2208.03306, section 3.1): a copy of one ELM, or an average.

The ELMs' posterior on a development sample of the new domain says which: `nearest` copies its
argmax, `average` weights all by it. `auto` tries both on that sample and takes the one of smaller
loss, the copy where both are equal; where one ELM has nearly all of the posterior, the average is
that ELM, and nothing is tried.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.forest.log_probs import block_rows, token_log_probs
from evomerge.connectors.local.training.errors import ElmsError, UnknownStartError
from evomerge.connectors.local.training.perplexity import EvaluationRows
from evomerge.connectors.local.training.progress import Tick
from evomerge.connectors.local.training.tokens import TokenCache
from evomerge.connectors.local.training.trainer import NO_TARGET
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.checkpoint.average import average
from evomerge.merging.checkpoint.files import read_checkpoint
from evomerge.merging.checkpoint.guards import check_mergeable
from evomerge.merging.forest.prior import LIMIT, estimate

# Starts that are chosen by a sample of the new domain.
Measured: TypeAlias = Literal["auto", "nearest", "average"]

# A posterior this sure makes an average that no loss can tell from the copy.
_SURE = 0.999


@dataclass(frozen=True)
class Elm:
    """A member of a forest, or its seed.

    Attributes:
        name: what it is called.
        folder: its checkpoint.
        domain: that it was trained on; None for the seed.
    """

    name: str
    folder: Path
    domain: str | None


@dataclass(frozen=True)
class Choice:
    """Which start was taken.

    Attributes:
        weights: shares of the ELMs by name, those above 0; a copy is one of 1.
        posterior: of the ELMs on the sample, by name; None where nothing was measured.
        losses: of the starts that were tried, in nats a token on the sample; likewise.
        folder: the start's checkpoint: an ELM's own, or the average in the scratch folder.
    """

    weights: dict[str, float]
    folder: Path
    posterior: dict[str, float] | None = None
    losses: dict[str, float] | None = None


class Brancher:
    """Chooses among the ELMs of a forest.

    Args:
        forest: its ELMs, the seed among them or not.
        scratch: where an average may be written.
        threads: CPU threads of a forward.
        tick: called between pieces of work.
        device: of a forward; see `load_base`.

    Raises:
        ElmsError: there is no ELM, two have one name, or there are two seeds.
    """

    def __init__(
        self,
        forest: Sequence[Elm],
        scratch: Path,
        threads: int | None,
        tick: Tick,
        *,
        device: str = "auto",
    ) -> None:
        names = [elm.name for elm in forest]
        if not forest:
            raise ElmsError("forest", [], "has neither a seed nor an ELM to start from")
        for name in names:
            if names.count(name) > 1:
                raise ElmsError("forest", name, "is the name of two ELMs")
        self._seeds = [elm for elm in forest if elm.domain is None]
        if len(self._seeds) > 1:
            seeds = [elm.name for elm in self._seeds]
            raise ElmsError("forest", seeds, "have no domain, as only the seed has none")
        self._elms = [elm for elm in forest if elm.domain is not None]
        self._average = scratch / "average"
        self._threads = threads
        self._device = device
        self._tick = tick

    def tokenizer_folder(self) -> Path:
        """Of any of them, for they share one."""
        return (self._elms or self._seeds)[0].folder

    def check(self, start: str) -> None:
        """Refuse a start that there is none of.

        Raises:
            UnknownStartError: neither a kind of start nor the name of an ELM.
        """
        if start == "seed":
            self.seed()
        elif start not in get_args(Measured):
            self.named(start)

    def named(self, name: str) -> Choice:
        """A copy of one ELM.

        Raises:
            UnknownStartError: there is none of that name.
        """
        for elm in [*self._seeds, *self._elms]:
            if elm.name == name:
                return _copy(elm)
        raise UnknownStartError(name, [elm.name for elm in [*self._seeds, *self._elms]])

    def seed(self) -> Choice:
        """A copy of the seed.

        Raises:
            UnknownStartError: it is not among the ELMs.
        """
        if not self._seeds:
            raise UnknownStartError("seed", [elm.name for elm in self._elms])
        return _copy(self._seeds[0])

    def measured(self, kind: Measured, sample: Sequence[Sequence[int]]) -> Choice:
        """The start of a kind, by the ELMs' posterior on a sample; the seed, where it is alone.

        Args:
            kind: see the module.
            sample: rows of token ids of the new domain, all but the first of each predicted.

        Raises:
            MismatchError: the ELMs, or the seed, are not of one lineage or one vocabulary.
            CheckpointError: a folder is no checkpoint.
            DiskFullError, ArtifactWriteError: the average cannot be written.
        """
        if not self._elms:
            return self.seed()
        members = [*self._seeds, *self._elms]
        check_mergeable([read_checkpoint(elm.folder) for elm in members])
        log_probs = [self._log_probs(elm.folder, sample) for elm in self._elms]
        weights = estimate(np.stack(rows) for rows in zip(*log_probs, strict=True))
        posterior = self._by_name(weights)
        nearest = int(weights.argmax())
        copy = _copy(self._elms[nearest])
        losses = {self._elms[nearest].name: _loss(log_probs[nearest])}
        sure = weights[nearest] >= _SURE
        if kind == "nearest" or (kind == "auto" and sure):
            return Choice(copy.weights, copy.folder, posterior, losses)
        self._tick()
        average([elm.folder for elm in self._elms], weights, self._average)
        losses["average"] = _loss(self._log_probs(self._average, sample))
        if kind == "auto" and losses[self._elms[nearest].name] <= losses["average"]:
            return Choice(copy.weights, copy.folder, posterior, losses)
        shares = {name: weight for name, weight in posterior.items() if weight > 0}
        return Choice(shares, self._average, posterior, losses)

    def clear(self) -> None:
        """Remove what was written into the scratch folder."""
        if self._average.is_dir():
            shutil.rmtree(self._average)

    def _log_probs(self, folder: Path, sample: Sequence[Sequence[int]]) -> list[FloatArray]:
        """One ELM at a time is in memory."""
        self._tick()
        elm = load_base(folder, device=self._device, threads=self._threads)
        return token_log_probs(elm, block_rows(sample), batch_tokens=_batch_tokens(elm))

    def _by_name(self, weights: FloatArray) -> dict[str, float]:
        return {elm.name: float(weight) for elm, weight in zip(self._elms, weights, strict=True)}


def development_sample(cache: TokenCache, block_tokens: int) -> list[list[int]]:
    """At most 100 rows of a domain's development documents, spread over them evenly."""
    part = EvaluationRows(cache, "dev", block_tokens)
    places = np.unique(np.linspace(0, len(part) - 1, min(LIMIT, len(part))).astype(int))
    return [_without_filling(part.row(int(place))) for place in places]


def _without_filling(row: NDArray[np.int64]) -> list[int]:
    return [int(token) for token in row if token != NO_TARGET]


def _copy(elm: Elm) -> Choice:
    return Choice({elm.name: 1.0}, elm.folder)


def _loss(log_probs: Sequence[FloatArray]) -> float:
    return -float(np.concatenate(log_probs).mean())


def _batch_tokens(elm: BaseModel) -> int:
    return max(4096, elm.context_tokens)
