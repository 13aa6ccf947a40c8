"""Checkpoints that jobs over forests read and make, on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from evomerge.app.schemas.forest_inputs import CorpusInput, ElmInput, ForestInput
from evomerge.app.schemas.result import ArtifactResult
from evomerge.app.services.storage import settle
from evomerge.app.worker.artifacts import listing
from evomerge.app.worker.errors import InputChangedError
from evomerge.evaluation.corpus import Corpus, read_content
from evomerge.merging.checkpoint.errors import CheckpointError
from evomerge.merging.checkpoint.files import content_hash

ELMS = "elms"
SEED = "seed"


def keep(folder: Path, data_dir: Path, digest: str) -> Path:
    """Move a checkpoint to where its content names it; what is there already is the same.

    Raises:
        OSError: the disk refuses.
    """
    home = (data_dir / ELMS).absolute()
    home.mkdir(parents=True, exist_ok=True)
    target = home / digest
    settle(folder, target)
    for beside in folder.iterdir() if folder.is_dir() else ():
        # An optimizer's state is no part of the content: the one that is there may lack it.
        if beside.is_dir() and not (target / beside.name).exists():
            beside.rename(target / beside.name)
    return target


def artifacts(folder: Path) -> list[ArtifactResult]:
    """Every file of a folder, with size and hash."""
    return [ArtifactResult(**asdict(file)) for file in listing(folder)]


def seed_of(forest: ForestInput) -> ElmInput:
    """The seed of a forest, as one more ELM."""
    return ElmInput(
        name=SEED,
        domain="",
        path=forest.seed_path,
        content_hash=forest.seed_hash,
        tokens=forest.seed_tokens,
    )


def lineage_of(forest: ForestInput) -> list[ElmInput]:
    """The seed and the ELMs, each under a name of its own."""
    seed = seed_of(forest)
    if any(elm.name == seed.name for elm in forest.elms):
        seed = seed.model_copy(update={"name": f"{SEED}:{seed.content_hash[:12]}"})
    return [seed, *forest.elms]


def check_forest(forest: ForestInput) -> None:
    """Read every byte of the seed and the ELMs.

    Raises:
        InputChangedError: one is gone, or is not what the job was created with.
    """
    for elm in (seed_of(forest), *forest.elms):
        what = "the seed" if elm.name == SEED else f"ELM {elm.name!r}"
        try:
            found = content_hash(elm.path)
        except (CheckpointError, OSError) as error:
            raise InputChangedError(what, "has gone") from error
        if found != elm.content_hash:
            raise InputChangedError(what, "has changed")


def check_corpora(inputs: Sequence[CorpusInput], tick: Callable[[], None]) -> None:
    """Read every document.

    Args:
        tick: called for each; may raise to stop.

    Raises:
        InputChangedError: they are not what the job was created with.
        CorpusError: one cannot be read.
    """
    for one in inputs:
        if read_content(Corpus(one.domain, one.path), tick).content_hash != one.content_hash:
            raise InputChangedError(f"the corpus of domain {one.domain!r}", "has changed")


def corpora(inputs: list[CorpusInput]) -> list[Corpus]:
    """The corpora of a job."""
    return [Corpus(one.domain, one.path) for one in inputs]
