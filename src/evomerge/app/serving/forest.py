"""A forest's ELMs that answer together in this process."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evomerge.app.db.models import Forest, ForestElm
from evomerge.app.ensembles import Ensemble
from evomerge.app.serving.engines import needs_torch, new_engine
from evomerge.app.serving.errors import ModelNotReadyError, ModelUnavailableError
from evomerge.app.serving.local import ChatForm, LocalModel
from evomerge.app.serving.protocol import Part, Request, Run
from evomerge.app.settings import Settings
from evomerge.connectors.local.engine_values import Weights
from evomerge.connectors.local.errors import LocalModelError
from evomerge.merging.forest.errors import ForestError

if TYPE_CHECKING:
    from evomerge.connectors.local.engine import Engine
    from evomerge.connectors.local.engine_prompts import Prompter
    from evomerge.connectors.local.forest.elms import Elms
    from evomerge.connectors.local.forest.ensemble import Mixing

logger = logging.getLogger(__name__)

# Forests whose ELMs stay in memory; the one that was called longest ago goes first.
_FORESTS = 4


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


@dataclass(frozen=True)
class _Grown:
    """A forest in memory.

    Attributes:
        elms: all of them, those that run loaded.
        ensemble: how they speak together.
        model: what answers.
    """

    elms: Elms
    ensemble: Ensemble
    engine: Engine
    model: ForestModel


class Forests:
    """Makes models of forests. For one event loop; what is slow runs in threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading = asyncio.Lock()
        self._grown: OrderedDict[str, _Grown] = OrderedDict()

    async def model(self, forest: Forest, elms: Sequence[ForestElm]) -> ForestModel:
        """The ensemble of a forest's ELMs as its settings stand now.

        Where ELMs or settings have changed, what is under way ends as it began, and ELMs that
        stay are not loaded again.

        Raises:
            ModelNotReadyError: it has no ELM yet.
            ModelUnavailableError: an ELM cannot be read, has changed, or fits no other.
            NotPossibleError: torch is not installed.
        """
        if not elms:
            raise ModelNotReadyError(f"forest {forest.name!r} has no ELM yet", param="model")
        async with self._loading:
            known = self._grown.get(forest.id)
            if known is None or not _stands(known, forest, elms):
                with needs_torch():
                    fresh = await asyncio.to_thread(self._grow, forest, elms, known)
                if known is not None:
                    known.engine.retire()
                self._grown[forest.id] = fresh
            self._grown.move_to_end(forest.id)
            while len(self._grown) > _FORESTS:
                self._grown.popitem(last=False)[1].engine.retire()
            return self._grown[forest.id].model

    async def close(self) -> None:
        """End every engine; what is under way fails."""
        for grown in self._grown.values():
            await asyncio.to_thread(grown.engine.close)
        self._grown.clear()

    def _grow(self, forest: Forest, rows: Sequence[ForestElm], known: _Grown | None) -> _Grown:
        # Here, not above: the service must do without torch until a model is called.
        from evomerge.connectors.local.engine_prompts import Prompter
        from evomerge.connectors.local.forest.elms import Elms
        from evomerge.connectors.local.forest.generation import EnsembleModel

        settings = self._settings
        ensemble = Ensemble.of(forest.ensemble)
        try:
            elms = Elms(
                _elms(rows),
                device=settings.device,
                dtype=settings.dtype,
                threads=settings.threads,
            )
            if known is not None:
                elms.take_over(known.elms)
            mixing = mixing_of(ensemble, elms.names)
            model = EnsembleModel(elms.models(mixing.running), mixing)
        except (LocalModelError, ForestError, OSError) as error:
            logger.error("forest %s: %s", forest.id, error)
            raise ModelUnavailableError(
                f"the ELMs of forest {forest.name!r} cannot be loaded; see the log", param="model"
            ) from error
        names = [elms.names[place] for place in mixing.running]
        engine = new_engine(model, settings, caches=len(names))
        about = _about(forest, ensemble, names, mixing)
        answers = ForestModel(engine, Prompter(model.models[0]), ChatForm(), about, names)
        return _Grown(elms, ensemble, engine, answers)


def mixing_of(ensemble: Ensemble, names: Sequence[str]) -> Mixing:
    """A forest's settings over its ELMs, in their order.

    Raises:
        ForestError: they do not fit these ELMs.
    """
    from evomerge.connectors.local.forest.ensemble import Mixing
    from evomerge.merging.forest.prior import Prior

    prior = Prior(np.array(ensemble.weights(names)), ensemble.mode)
    return Mixing(prior, ensemble.history, ensemble.top_k, ensemble.top_k_kind)


def _elms(rows: Sequence[ForestElm]) -> list[Any]:
    from evomerge.connectors.local.forest.elms import Elm

    return [Elm(row.name, Path(row.path), row.content_hash) for row in rows]


def _stands(known: _Grown, forest: Forest, rows: Sequence[ForestElm]) -> bool:
    """Whether a forest in memory is what its rows say, and answers."""
    same = known.elms.elms == tuple(_elms(rows)) and known.ensemble == Ensemble.of(forest.ensemble)
    return same and not known.engine.closed


def _about(
    forest: Forest, ensemble: Ensemble, names: Sequence[str], mixing: Mixing
) -> dict[str, Any]:
    return {
        "kind": "forest",
        "forest_id": forest.id,
        "elms": list(names),
        "history": ensemble.history,
        "prior_mode": ensemble.mode,
        "prior": dict(zip(names, mixing.running_prior.weights.tolist(), strict=True)),
        "top_k": ensemble.top_k,
        "top_k_kind": ensemble.top_k_kind,
    }
