"""What models give to the pieces: each model reads each piece once, and it is kept."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from benchmarks.btm.bench import Bench
from benchmarks.btm.workers import Say

from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.forest.log_probs import text_rows, token_log_probs
from evomerge.evaluation.corpus import Part
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.checkpoint.average import average

_BATCH_TOKENS = 2048

# Log-probabilities (T,) of each piece of a domain's part.
Read = Mapping[tuple[str, Part], list[FloatArray]]


@dataclass(frozen=True)
class Reading:
    """A model, or an average of several, and what it is to read.

    Attributes:
        folders: of the models.
        wanted: domains and parts.
        weights: of the average; none for a single model.
        same_lineage: whether models without a seed in common are refused.
    """

    folders: tuple[Path, ...]
    wanted: tuple[tuple[str, Part], ...]
    weights: tuple[float, ...] = field(default=())
    same_lineage: bool = True


def read_all(
    executor: ProcessPoolExecutor, bench: Bench, readings: Mapping[str, Reading], say: Say
) -> dict[str, Read]:
    """Every reading by its name.

    Raises:
        LocalModelError, CheckpointError: of the first that failed.
    """
    under_way = {name: executor.submit(read, bench, one) for name, one in readings.items()}
    found = {}
    for count, (name, future) in enumerate(under_way.items(), start=1):
        found[name] = future.result()
        if count % 20 == 0 or count == len(readings):
            say(f"{count} of {len(readings)} readings")
    return found


def read(bench: Bench, reading: Reading) -> Read:
    """What the model gives to the pieces.

    Raises:
        LocalModelError: it cannot be loaded, or gives NaN.
        CheckpointError: the models cannot be averaged.
    """
    if not reading.weights:
        [folder] = reading.folders
        return _read(bench, folder, reading)
    scratch = bench.home / "scratch"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as holder:
        out = Path(holder) / "average"
        average(reading.folders, reading.weights, out, same_lineage=reading.same_lineage)
        return _read(bench, out, reading)


def _read(bench: Bench, folder: Path, reading: Reading) -> Read:
    model = load_base(folder, device="cpu", dtype="float32", threads=bench.threads)
    return {
        (domain, part): _log_probs(bench, model, domain, part) for domain, part in reading.wanted
    }


def _log_probs(bench: Bench, model: BaseModel, domain: str, part: Part) -> list[FloatArray]:
    rows = text_rows(model, [piece.text for piece in bench.pieces(domain, part)])
    return token_log_probs(
        model,
        rows,
        batch_tokens=_BATCH_TOKENS,
        # A longer piece is read in windows as long as the blocks that were trained on.
        context_tokens=bench.settings.block_tokens,
        cache=LogProbCache(bench.home / "log_probs"),
    )


def by_document(bench: Bench, domain: str, losses: Sequence[float]) -> FloatArray:
    """(documents,): what belongs to the pieces of the domain's test part, by their document."""
    numbers = [piece.document for piece in bench.pieces(domain, "test")]
    return np.bincount(numbers, weights=losses).astype(np.float64)
