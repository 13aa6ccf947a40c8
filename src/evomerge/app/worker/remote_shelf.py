"""A pool that is here and a server that loads its candidates as adapters. Needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evomerge.app.errors import UnavailableError
from evomerge.app.schemas.remote import Remote
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services.tokens import Vocabulary, vocabulary
from evomerge.app.settings import Settings
from evomerge.app.worker.benches import LoraBenches
from evomerge.app.worker.errors import InputChangedError, JobError
from evomerge.app.worker.lora_bench import DTYPE, DTYPES
from evomerge.app.worker.order import Order
from evomerge.app.worker.remote_bench import Place
from evomerge.app.worker.remote_places import about, scoring
from evomerge.connectors.local.headers import content_hash
from evomerge.connectors.local.rows import RowEncoder
from evomerge.connectors.lorax import LoraxMerger, Texts
from evomerge.connectors.remote import Merger
from evomerge.connectors.server import Server
from evomerge.connectors.shelf import Shelf
from evomerge.connectors.vllm import RANKS, VllmMerger
from evomerge.merging.lora.space import Composition, LoraSpace
from evomerge.merging.lora.writer import AdapterWriter
from evomerge.optimizers import Candidate

_PREFIX = "evomerge"


def shelved(
    settings: Settings,
    lora: LoraBenches,
    order: Order,
    remote: Remote,
    servers: Sequence[Server],
) -> Place:
    """The place where candidates are folders.

    Raises:
        JobError: the base is not here, it or an adapter has changed, or the folder may not be
            written to.
        ConnectorError, MergingError: the base or an adapter cannot be read.
    """
    spec, inputs = order.spec, order.inputs
    base = lora.folder(inputs)
    base_hash = content_hash(base)
    if inputs.base_hash not in (None, base_hash):
        raise InputChangedError(f"base model {inputs.base_name!r}", "has changed")
    words = _words(base)
    pool = lora.pool(spec, inputs, torch.device("cpu"))
    out = _folder(settings, remote)

    def writer(composition: Composition) -> AdapterWriter:
        space = LoraSpace(pool, composition)
        rank = min(spec.output.rank or remote.rank, remote.rank)
        dtype = DTYPES[spec.output.dtype or DTYPE]
        ranks = [one for one in RANKS if one <= remote.rank]
        return AdapterWriter(space, inputs.base_name, dtype, rank=rank, ranks=ranks)

    def merger(made: AdapterWriter) -> Merger:
        def name(candidate: Candidate) -> str:
            return f"{_PREFIX}-{order.job_id}-{made.name(candidate)}"

        shelf = Shelf(out, name, made.write)
        if remote.provider == "lorax":
            return LoraxMerger(servers[0], _texts(spec, remote, words), shelf=shelf)
        return VllmMerger(servers, _encoder(spec, words), shelf)

    winners, exact = writer(spec.composition), writer("exact")
    scorer = scoring(merger(winners))
    plain = scorer if spec.composition == "exact" else scoring(merger(exact))

    def keep(candidate: Candidate, folder: Path) -> dict[str, Any]:
        winners.write(candidate, folder)
        return {}

    names = [expert.name for expert in inputs.experts]
    told = {**about(remote), "composition": spec.composition, "base": inputs.base_name}
    return Place(told, names, base_hash, scorer, plain, keep)


def _words(base: Path) -> Vocabulary:
    try:
        words = vocabulary(base)
    except UnavailableError as error:
        raise JobError("unknown_base", error.message) from error
    if words is None:
        raise JobError("not_installed", "transformers is not installed: it tokenises the rows")
    return words


def _encoder(spec: MergeJobSpec, words: Vocabulary) -> RowEncoder:
    objective = spec.objective
    return RowEncoder(
        words.tokenizer,
        # One token is generated behind each row.
        words.limit - 1,
        context_tokens=objective.context_tokens,
        answer_prefix=objective.answer_prefix,
        end_of_text=objective.end_of_text,
    )


def _texts(spec: MergeJobSpec, remote: Remote, words: Vocabulary) -> Texts:
    objective = spec.objective
    end = remote.end_of_text or str(words.tokenizer.eos_token or "")
    return Texts(objective.answer_prefix, end if objective.end_of_text else "")


def _folder(settings: Settings, remote: Remote) -> Path:
    """Checked again: this worker may have other settings than the service that took the job."""
    folder = Path(remote.adapter_dir or "")
    if not any(folder.resolve().is_relative_to(one.resolve()) for one in settings.adapter_dirs):
        raise JobError(
            "folder_refused",
            "remote.adapter_dir lies below none of this worker's adapter_dirs",
            "remote.adapter_dir",
        )
    return folder
