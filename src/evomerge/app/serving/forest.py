"""ELMs that answer together in this process: those of a forest, or of a merge of one."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from evomerge.app.db.models import Forest, ForestElm
from evomerge.app.ensembles import Ensemble
from evomerge.app.mixtures import StoredMixture
from evomerge.app.routing import RoutingError, clusters_of, load_router
from evomerge.app.serving.engines import needs_torch, new_engine
from evomerge.app.serving.errors import ModelNotReadyError, ModelUnavailableError
from evomerge.app.serving.local import ChatForm, LocalModel
from evomerge.app.serving.protocol import Part, Request, Run
from evomerge.app.settings import Settings
from evomerge.connectors.local.engine_values import Weights
from evomerge.connectors.local.errors import LocalModelError
from evomerge.merging.forest.errors import ForestError
from evomerge.merging.forest.router import Router

if TYPE_CHECKING:
    from evomerge.connectors.local.engine import Engine
    from evomerge.connectors.local.engine_prompts import Prompter
    from evomerge.connectors.local.forest.elms import Elms
    from evomerge.connectors.local.forest.ensemble import Mixing

logger = logging.getLogger(__name__)

# Forests, and merges of them, whose ELMs stay in memory; the one that was called longest ago goes
# first.
_FORESTS = 4
# Name, folder and content hash of an ELM.
_Member: TypeAlias = tuple[str, Path, str]


class ForestModel(LocalModel):
    """A `ServedModel` over an engine of several ELMs; it tells what each of them weighs.

    Args:
        engine, prompter, form: see `LocalModel`.
        about: the report before any answer.
        names: of the ELMs that run, in the order of the engine's weights.
    """

    def __init__(
        self,
        engine: Engine,
        prompter: Prompter,
        form: ChatForm,
        about: Mapping[str, Any],
        names: Sequence[str],
    ) -> None:
        super().__init__(engine, prompter, None, form)
        self._about = about
        self._names = names

    async def start(self, request: Request) -> Run:
        """See `ServedModel.start`."""
        run = await super().start(request)
        run.report.update(self._about, answers=[])
        run.parts = self._weighed(run.report["answers"], run.parts)
        return run

    async def _weighed(
        self, answers: list[dict[str, Any]], parts: AsyncGenerator[Part]
    ) -> AsyncGenerator[Part]:
        """The same parts, each with the posterior as it stands; the last ones are gathered."""
        latest: dict[int, dict[str, float]] = {}
        async with aclosing(parts):
            async for part in parts:
                latest[part.index] = self._posterior(part.told.weights)
                yield replace(part, report={"posterior": latest[part.index]})
        answers += [{"index": index, "posterior": latest[index]} for index in sorted(latest)]

    def _posterior(self, weights: Weights) -> dict[str, float]:
        return dict(zip(self._names, weights, strict=True))


class MixtureModel(LocalModel):
    """A `ServedModel` over ELMs of fixed weights; it tells them.

    Args:
        engine, prompter, form: see `LocalModel`.
        about: the report of every answer.
    """

    def __init__(
        self, engine: Engine, prompter: Prompter, form: ChatForm, about: Mapping[str, Any]
    ) -> None:
        super().__init__(engine, prompter, None, form)
        self._about = about

    async def start(self, request: Request) -> Run:
        """See `ServedModel.start`."""
        run = await super().start(request)
        run.report.update(self._about)
        return run


class _Grove(Protocol):
    """ELMs, and how they speak together. Equal ones answer alike."""

    @property
    def key(self) -> str:
        """Of which one is kept."""
        ...

    @property
    def title(self) -> str:
        """What errors call it."""
        ...

    @property
    def members(self) -> tuple[_Member, ...]: ...

    def mixing(self) -> Mixing:
        """How they speak, in the order of the members."""
        ...

    def model(self, engine: Engine, prompter: Prompter, mixing: Mixing) -> LocalModel:
        """What answers, over an engine of those that run."""
        ...


@dataclass(frozen=True)
class _Forest:
    """A forest as its rows stand."""

    key: str
    title: str = field(compare=False)
    members: tuple[_Member, ...]
    ensemble: Ensemble
    clusters: tuple[int | None, ...] = ()
    data_dir: Path = field(default=Path(), compare=False)

    def mixing(self) -> Mixing:
        if self.ensemble.weighting == "router" and self.ensemble.router is not None:
            router = load_router(self.data_dir, self.ensemble.router)
            return routed(router, self.clusters, self.ensemble.top_k)
        return mixing_of(self.ensemble, [name for name, *_ in self.members])

    def model(self, engine: Engine, prompter: Prompter, mixing: Mixing) -> LocalModel:
        names = [self.members[place][0] for place in mixing.running]
        about = _about(self.key, self.ensemble, names, mixing)
        return ForestModel(engine, prompter, ChatForm(), about, names)


@dataclass(frozen=True)
class _Mixture:
    """A finished merge of a forest's ELMs."""

    key: str
    title: str
    members: tuple[_Member, ...]
    stored: StoredMixture
    form: ChatForm

    def mixing(self) -> Mixing:
        from evomerge.connectors.local.forest.ensemble import Mixing
        from evomerge.merging.forest.prior import Prior

        weights = np.array([voice.weight for voice in self.stored.voices])
        return Mixing(Prior.cached(weights), fixed=True)

    def model(self, engine: Engine, prompter: Prompter, mixing: Mixing) -> LocalModel:
        weights = {voice.name: voice.weight for voice in self.stored.voices}
        about = {"space": "output", "kind": "mixture", "weights": weights}
        return MixtureModel(engine, prompter, self.form, about)


@dataclass(frozen=True)
class _Grown:
    """A grove in memory.

    Attributes:
        grove: what it is.
        elms: all of them, those that run loaded.
        model: what answers.
    """

    grove: _Grove
    elms: Elms
    engine: Engine
    model: LocalModel


class Forests:
    """Makes models of forests. For one event loop; what is slow runs in threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading = asyncio.Lock()
        self._grown: OrderedDict[str, _Grown] = OrderedDict()

    async def model(self, forest: Forest, elms: Sequence[ForestElm]) -> LocalModel:
        """The ensemble of a forest's ELMs as its settings stand now.

        Where ELMs or settings have changed, what is under way ends as it began, and ELMs that
        stay are not loaded again.

        Raises:
            ModelNotReadyError: it has no ELM yet, or its router leads to one that is not there.
            ModelUnavailableError: an ELM cannot be read, has changed, or fits no other.
            NotPossibleError: torch is not installed.
        """
        if not elms:
            raise ModelNotReadyError(f"forest {forest.name!r} has no ELM yet", param="model")
        members = tuple((row.name, Path(row.path), row.content_hash) for row in elms)
        title = f"forest {forest.name!r}"
        ensemble = Ensemble.of(forest.ensemble)
        clusters: tuple[int | None, ...] = ()
        if ensemble.weighting == "router":
            clusters = _clusters(title, ensemble, elms)
        data_dir = self._settings.data_dir
        return await self._get(_Forest(forest.id, title, members, ensemble, clusters, data_dir))

    async def mixture(
        self, job_id: str, stored: StoredMixture, folders: Mapping[str, Path], form: ChatForm
    ) -> LocalModel:
        """The merge of a forest's ELMs that a job made.

        Args:
            folders: of checkpoints, by content hash.
            form: how chats are put to it.

        Raises:
            ModelUnavailableError: an ELM cannot be read, or has changed.
            NotPossibleError: torch is not installed.
            KeyError: a folder is not known.
        """
        members = tuple(
            (voice.name, folders[voice.content_hash], voice.content_hash) for voice in stored.voices
        )
        return await self._get(_Mixture(job_id, f"job {job_id}", members, stored, form))

    async def close(self) -> None:
        """End every engine; what is under way fails."""
        for grown in self._grown.values():
            await asyncio.to_thread(grown.engine.close)
        self._grown.clear()

    async def _get(self, grove: _Grove) -> LocalModel:
        async with self._loading:
            known = self._grown.get(grove.key)
            if known is None or known.grove != grove or known.engine.closed:
                with needs_torch():
                    fresh = await asyncio.to_thread(self._grow, grove, known)
                if known is not None:
                    known.engine.retire()
                self._grown[grove.key] = fresh
            self._grown.move_to_end(grove.key)
            while len(self._grown) > _FORESTS:
                self._grown.popitem(last=False)[1].engine.retire()
            return self._grown[grove.key].model

    def _grow(self, grove: _Grove, known: _Grown | None) -> _Grown:
        # Here, not above: the service must do without torch until a model is called.
        from evomerge.connectors.local.engine_prompts import Prompter
        from evomerge.connectors.local.forest.elms import Elm, Elms
        from evomerge.connectors.local.forest.generation import EnsembleModel

        settings = self._settings
        try:
            elms = Elms(
                [Elm(*member) for member in grove.members],
                device=settings.device,
                dtype=settings.dtype,
                threads=settings.threads,
            )
            if known is not None:
                elms.take_over(known.elms)
            mixing = grove.mixing()
            model = EnsembleModel(elms.models(mixing.running), mixing)
        except (LocalModelError, ForestError, OSError) as error:
            logger.error("%s: %s", grove.key, error)
            raise ModelUnavailableError(
                f"the ELMs of {grove.title} cannot be loaded; see the log", param="model"
            ) from error
        engine = new_engine(model, settings, caches=len(model.models))
        answers = grove.model(engine, Prompter(model.models[0]), mixing)
        return _Grown(grove, elms, engine, answers)


def mixing_of(ensemble: Ensemble, names: Sequence[str]) -> Mixing:
    """A forest's settings over its ELMs, in their order.

    Raises:
        ForestError: they do not fit these ELMs.
    """
    from evomerge.connectors.local.forest.ensemble import Mixing
    from evomerge.merging.forest.prior import Prior

    prior = Prior(np.array(ensemble.weights(names)), ensemble.mode)
    return Mixing(prior, ensemble.history, ensemble.top_k, ensemble.top_k_kind)


def routed(router: Router, clusters: Sequence[int | None], top_k: int | None) -> Mixing:
    """The ELMs of a router's clusters as it weighs them.

    Args:
        clusters: of each ELM of the forest; those of none never run.

    Raises:
        ForestError: they do not fit the router.
    """
    from evomerge.connectors.local.forest.ensemble import Mixing
    from evomerge.connectors.local.forest.routing import Routing
    from evomerge.merging.forest.prior import Prior

    voices = tuple(cluster for cluster in clusters if cluster is not None)
    runs = np.array([cluster is not None for cluster in clusters], dtype=np.float64)
    routing = Routing(router, voices)
    return Mixing(Prior.cached(runs / runs.sum()), top_k=top_k, routing=routing)


def _clusters(title: str, ensemble: Ensemble, elms: Sequence[ForestElm]) -> tuple[int | None, ...]:
    try:
        return tuple(clusters_of(ensemble, [elm.lineage.get("corpus_hash") for elm in elms]))
    except RoutingError as error:
        raise ModelNotReadyError(f"{title}: {error}", param="model") from error


def _about(
    forest_id: str, ensemble: Ensemble, names: Sequence[str], mixing: Mixing
) -> dict[str, Any]:
    return {
        "kind": "forest",
        "forest_id": forest_id,
        "elms": list(names),
        "history": ensemble.history,
        "prior_mode": ensemble.mode,
        "prior": dict(zip(names, mixing.running_prior.weights.tolist(), strict=True)),
        "top_k": ensemble.top_k,
        "top_k_kind": ensemble.top_k_kind,
        "weighting": ensemble.weighting,
    }
