"""From a model's name to what answers: what jobs made, forests, and experts if served."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from evomerge.app.db.models import Expert, Forest, ForestElm, Job
from evomerge.app.db.repositories import forests, models
from evomerge.app.db.repositories.lookup import find, newest
from evomerge.app.errors import NotPossibleError
from evomerge.app.mixtures import StoredMixture
from evomerge.app.outputs import StoredOutput
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services.context import Context
from evomerge.app.services.datasets import first_example
from evomerge.app.serving.engines import Engines
from evomerge.app.serving.errors import (
    ModelNotFoundError,
    ModelNotReadyError,
    ModelUnavailableError,
)
from evomerge.app.serving.forest import Forests
from evomerge.app.serving.local import ChatForm
from evomerge.app.serving.output import OutputModel
from evomerge.app.serving.protocol import Card, ServedModel
from evomerge.app.serving.remote import RemoteModel, remote_writer
from evomerge.app.serving.scoring import ScoringModel
from evomerge.app.worker.artifacts import folder_of
from evomerge.merging.lora.config import CONFIG_FILE

logger = logging.getLogger(__name__)

# Merges without a name, forests, and experts, that a list holds at most.
_LISTED = 1000
_PLAIN = "plain"

Make = Callable[[Job, MergeJobSpec, JobInputs], Awaitable[ServedModel]]


class Models:
    """Every model of the service. Use as an async context manager; made once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._engines = Engines(context.settings)
        self._forests = Forests(context.settings)
        self._spaces: Mapping[str, Make] = {
            "lora": self._lora,
            "checkpoint": self._checkpoint,
            "output": self._output,
            "remote": self._remote,
        }

    async def __aenter__(self) -> Models:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._engines.close()
        await self._forests.close()

    async def get(self, name: str) -> ServedModel:
        """What answers under a name: that of a merge or an average, or its job's id; the name or
        id of a forest or an expert.

        Raises:
            ModelNotFoundError: nothing has this name.
            ModelNotReadyError: it is a job that has not succeeded, or a forest without an ELM.
            ApiError: it cannot be loaded.
        """
        match await self._find(name):
            case Job(kind="merge") as job:
                return await self._merge(job)
            case Job(kind="average") as job:
                _check_finished(job)
                folder = folder_of(self._context.settings.data_dir, job.id)
                return await self._engines.checkpoint(
                    f"job {job.id}", folder, ChatForm(), partial(self._hashes, job.id)
                )
            case Forest() as forest:
                async with self._context.database.read() as session:
                    elms = await forests.elms(session, forest.id)
                return await self._forests.model(forest, elms)
            case Expert(base=str(), path=str()) as expert:
                return await self._expert(expert)
        raise ModelNotFoundError(name)

    async def card(self, name: str) -> Card:
        """How a model is listed. Raises as `get`, and loads nothing."""
        match await self._find(name):
            case Job(kind="merge" | "average") as job:
                _check_finished(job)
                return _job_card(name, job)
            case Forest() as forest:
                async with self._context.database.read() as session:
                    elms = await forests.elms(session, forest.id)
                return _forest_card(forest, elms)
            case Expert() as expert:
                return _expert_card(expert)
        raise ModelNotFoundError(name)

    async def cards(self) -> list[Card]:
        """Merges and averages by name, then by their jobs' ids; forests; experts if served."""
        async with self._context.database.read() as session:
            named = await models.named(session)
            unnamed = await models.unnamed(session, _LISTED)
            grown, _ = await newest(session, Forest, after=None, limit=_LISTED)
            elms = await forests.elms_of(session, [forest.id for forest in grown])
            experts = await models.experts(session, _LISTED) if self._serves_experts else []
        return [
            *(_job_card(model.name, job) for model, job in named),
            *(_job_card(job.id, job) for job in unnamed),
            *(_forest_card(forest, elms[forest.id]) for forest in grown if elms[forest.id]),
            *map(_expert_card, experts),
        ]

    @property
    def _serves_experts(self) -> bool:
        return self._context.settings.serve_experts

    async def _find(self, name: str) -> Job | Forest | Expert | None:
        async with self._context.database.read() as session:
            found = await models.find(session, name) or await find(session, Forest, name)
            if found is not None or not self._serves_experts:
                return found
            expert = await find(session, Expert, name)
        return expert if expert is not None and expert.kind == "lora" else None

    async def _hashes(self, job_id: str) -> dict[str, str]:
        """SHA-256 of the files that a job made, by name."""
        async with self._context.database.read() as session:
            result = await models.result(session, job_id)
        return {each["name"]: each["sha256"] for each in result.get("artifacts", [])}

    async def _expert(self, expert: Expert) -> ServedModel:
        form = ChatForm(template=expert.meta.get("chat") != _PLAIN)
        return await self._engines.model(
            str(expert.base), Path(str(expert.path)), form, content_hash=expert.content_hash
        )

    async def _merge(self, job: Job) -> ServedModel:
        _check_finished(job)
        spec = MergeJobSpec.model_validate(job.spec)
        made = "checkpoint" if spec.makes_checkpoint else spec.space
        return await self._spaces[made](job, spec, JobInputs.model_validate(job.inputs))

    async def _lora(self, job: Job, spec: MergeJobSpec, inputs: JobInputs) -> ServedModel:
        folder = folder_of(self._context.settings.data_dir, job.id)
        form = await _form(spec, inputs)
        return await self._engines.model(
            inputs.base_name,
            folder,
            form,
            base_hash=inputs.base_hash,
            files=partial(self._hashes, job.id),
        )

    async def _checkpoint(self, job: Job, spec: MergeJobSpec, inputs: JobInputs) -> ServedModel:
        folder = folder_of(self._context.settings.data_dir, job.id)
        form = await _form(spec, inputs)
        return await self._engines.checkpoint(
            f"job {job.id}", folder, form, partial(self._hashes, job.id)
        )

    async def _remote(self, job: Job, spec: MergeJobSpec, inputs: JobInputs) -> ServedModel:
        """Where the winner is an adapter over a base that is here, it answers here."""
        folder = folder_of(self._context.settings.data_dir, job.id)
        if inputs.base is not None and (folder / CONFIG_FILE).is_file():
            return await self._lora(job, spec, inputs)
        try:
            writer = await asyncio.to_thread(
                remote_writer, folder, spec.remote, self._context.connectors.caller
            )
        except (OSError, ValueError, KeyError) as error:
            raise _unreadable(job, error) from error
        if writer is None:
            raise NotPossibleError(
                f"job {job.id}: its merge lives at its provider, which is to be asked itself",
                param="model",
            )
        return RemoteModel(writer, await _form(spec, inputs))

    async def _output(self, job: Job, spec: MergeJobSpec, inputs: JobInputs) -> ServedModel:
        folder = folder_of(self._context.settings.data_dir, job.id)
        if inputs.seed is not None:
            return await self._mixture(job, folder, inputs, await _form(spec, inputs))
        try:
            stored = await asyncio.to_thread(StoredOutput.read, folder)
        except (OSError, ValueError, KeyError) as error:
            raise _unreadable(job, error) from error
        model = ScoringModel if stored.merge.kind == "scored_text" else OutputModel
        return model(stored, self._context.connectors)

    async def _mixture(
        self, job: Job, folder: Path, inputs: JobInputs, form: ChatForm
    ) -> ServedModel:
        try:
            stored = await asyncio.to_thread(StoredMixture.read, folder)
            return await self._forests.mixture(job.id, stored, _folders(inputs), form)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(job, error) from error


def _folders(inputs: JobInputs) -> dict[str, Path]:
    """Where the seed and the ELMs of a job are, by content hash."""
    hashes = (expert.content_hash for expert in inputs.experts)
    found = dict(zip(hashes, inputs.folders, strict=True))
    return found if inputs.seed is None else found | {inputs.seed.content_hash: inputs.seed.path}


async def _form(spec: MergeJobSpec, inputs: JobInputs) -> ChatForm:
    """Chats as the rows of the job's first dataset were put to its candidates."""
    rows = inputs.datasets[0].path
    try:
        template = rows is not None and bool((await first_example(rows)).messages)
    except OSError:  # the rows are gone; most are prompts
        template = False
    # White space at the end belongs to the answer's first token, which the model writes.
    return ChatForm(template, spec.objective.answer_prefix.rstrip(), spec.objective.max_new_tokens)


def _unreadable(job: Job, error: Exception) -> ModelUnavailableError:
    logger.error("job %s: its merge cannot be read: %s", job.id, error)
    return ModelUnavailableError("the merge cannot be read; see the log", param="model")


def _check_finished(job: Job) -> None:
    if job.status != "succeeded":
        raise ModelNotReadyError(
            f"job {job.id} is {job.status}: only a job that has succeeded is a model", param="model"
        )


def _job_card(name: str, job: Job) -> Card:
    return _merge_card(name, job) if job.kind == "merge" else _average_card(name, job)


def _average_card(name: str, job: Job) -> Card:
    about = {
        "kind": "average",
        "forest_id": job.inputs["forest"]["id"],
        "forest_job_id": job.id,
    }
    return Card(name, job.finished_at or job.created_at, about)


def _merge_card(name: str, job: Job) -> Card:
    about: dict[str, Any] = {
        "kind": "merge",
        "space": job.spec.get("space", "lora"),
        "base": job.inputs.get("base"),
        "merge_job_id": job.id,
    }
    if job.inputs.get("seed") is not None:
        about["forest_id"] = job.inputs["pool_id"]
    return Card(name, job.finished_at or job.created_at, about)


def _forest_card(forest: Forest, elms: Sequence[ForestElm]) -> Card:
    about = {"kind": "forest", "forest_id": forest.id, "elms": [elm.name for elm in elms]}
    return Card(forest.name, forest.created_at, about)


def _expert_card(expert: Expert) -> Card:
    about = {"kind": "expert", "space": "lora", "base": expert.base, "expert_id": expert.id}
    return Card(expert.name, expert.created_at, about)
