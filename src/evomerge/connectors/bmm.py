"""The BMM session protocol: a holder of adapters scores candidates that others propose.

Only alpha and beta travel, and one loss comes back: adapters and data stay with their holder. So
there are no losses by example and no weights; each dataset of theirs counts as one example.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from evomerge.connectors.base import Scores, Usage
from evomerge.connectors.errors import QuestionRefusedError, UnknownModelError
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.server import Most, Server, Tally
from evomerge.connectors.shapes import mapping, word
from evomerge.evaluation.example import Example
from evomerge.optimizers.candidate import Candidate

# What a session's id may look like: it becomes part of a path.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TAG = "evomerge"
T = TypeVar("T")


def their_dataset(name: str) -> Example:
    """A dataset of the provider's as the one opaque example that it is to us."""
    return Example(prompt=name, completion="")


@dataclass(frozen=True)
class Session:
    """A session as its server tells of it."""

    id: str
    adapters: int


def session_body(preset: str, query: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """What opens a session; an empty dataset means the preset's own.

    A server resets what a partial query leaves out, so a query goes whole or not at all.
    """
    asked = {**query, **({"dataset": dataset} if dataset else {})}
    return {"preset_id": preset, **({"query_plus": asked} if asked else {})}


def candidate_body(candidate: Candidate) -> dict[str, Any]:
    """A candidate of one group.

    Raises:
        ValueError: it has layer groups.
    """
    if candidate.groups != 1:
        raise ValueError(f"groups={candidate.groups}: a session weighs whole adapters")
    alpha, beta = candidate.alpha[0].tolist(), candidate.beta[0].tolist()
    return {"alpha": alpha, "beta": beta, "tag": _TAG}


def read_presets(answer: Any) -> list[str]:
    """The ids of the presets.

    Raises:
        BadAnswerError: it is no such list.
    """
    items = mapping(answer, "the answer").get("items")
    if not isinstance(items, list):
        raise BadAnswerError("no items in the answer")
    return [word(mapping(item, "a preset").get("preset_id")) for item in items]


def read_session(answer: Any) -> Session:
    """A session.

    Raises:
        BadAnswerError: it is none.
    """
    found = mapping(answer, "the session")
    name, adapters = word(found.get("session_id")), found.get("adapter_count")
    if not _ID.fullmatch(name) or not isinstance(adapters, int):
        raise BadAnswerError("the session has no usable id, or does not count its adapters")
    return Session(name, adapters)


def read_loss(answer: Any) -> float:
    """The loss of a candidate; NaN where it broke.

    Raises:
        BadAnswerError: there is none.
    """
    found = mapping(answer, "the answer")
    if "loss" not in found:
        raise BadAnswerError("no loss in the answer")
    loss = found["loss"]
    if loss is None:
        return math.nan
    if isinstance(loss, bool) or not isinstance(loss, int | float):
        raise BadAnswerError(f"a loss is {type(loss).__name__}, not a number")
    return float(loss) if math.isfinite(loss) else math.nan


def read_folder(answer: Any) -> str:
    """Where a materialised candidate is, in the server's own words.

    Raises:
        BadAnswerError: it does not say.
    """
    return word(mapping(answer, "the answer").get("adapter_dir"))


@dataclass
class BmmEvaluator:
    """An `Evaluator` over one preset; an example is a dataset there (see `their_dataset`).

    A loss is the server's own number, a weight always 1. Tokens are unknown and counted as none.

    Attributes:
        server: whom to ask.
        preset: its id there.
        experts: how many adapters it must have.
        query: `query_plus` of every session, the dataset apart.
        clock: seconds, for the usage.
    """

    server: Server
    preset: str
    experts: int
    query: Mapping[str, Any] = field(default_factory=dict)
    clock: Callable[[], float] = time.perf_counter
    _sessions: dict[str, Session] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def check(self, examples: Sequence[Example]) -> None:
        """See `RemoteScorer.check`: the data is the server's, and so is what it refuses."""

    def most(self, candidates: int, examples: Sequence[Example]) -> Most:
        """See `RemoteScorer.most`: tokens are the server's own affair."""
        new = sum(example.prompt not in self._sessions for example in examples)
        return Most(2 * new + candidates * len(examples))

    def width(self, examples: Sequence[Example]) -> int:
        """See `Evaluator.width`: one, for a session runs one candidate at a time."""
        return 1

    async def score(self, candidates: Sequence[Candidate], examples: Sequence[Example]) -> Scores:
        """See `Evaluator.score`.

        Raises:
            AskError: the server does not answer, has no such preset, or other adapters.
        """
        started, tally = self.clock(), Tally()
        losses = np.empty((len(candidates), len(examples)))
        for row, candidate in enumerate(candidates):
            for column, example in enumerate(examples):
                answer = await self._ask("evaluate", candidate, example.prompt, read_loss, tally)
                losses[row, column] = answer
        usage = Usage(requests=tally.requests, seconds=self.clock() - started)
        return Scores(losses, np.ones(len(examples)), usage)

    async def materialize(self, candidate: Candidate, dataset: str) -> str:
        """Have the server write the candidate; where it is, in the server's own words.

        Raises:
            AskError: as `score`; CredentialError where the key may not.
        """
        return await self._ask("materialize", candidate, dataset, read_folder, Tally())

    async def _ask(
        self,
        what: str,
        candidate: Candidate,
        dataset: str,
        read: Callable[[Any], T],
        tally: Tally,
    ) -> T:
        body = candidate_body(candidate)
        session = await self._session(dataset, tally)
        try:
            path = f"/v1/sessions/{session.id}/{what}"
            return await self.server.post(path, body, read, tally)
        except UnknownModelError:
            # The server has forgotten the session, as one that was started again may.
            self._sessions.pop(dataset, None)
            session = await self._session(dataset, tally)
            path = f"/v1/sessions/{session.id}/{what}"
            return await self.server.post(path, body, read, tally)

    async def _session(self, dataset: str, tally: Tally) -> Session:
        async with self._lock:
            if dataset not in self._sessions:
                self._sessions[dataset] = await self._open(dataset, tally)
            return self._sessions[dataset]

    async def _open(self, dataset: str, tally: Tally) -> Session:
        # Looked for first: some servers answer an unknown preset as if they had broken down.
        presets = await self.server.get("/v1/presets", read_presets, tally)
        if self.preset not in presets:
            known = ", ".join(map(repr, presets)) or "none"
            raise self._refused(f"no preset {self.preset!r}; it has {known}", "remote.model")
        body = session_body(self.preset, self.query, dataset)
        session = await self.server.post("/v1/sessions", body, read_session, tally)
        if session.adapters != self.experts:
            raise self._refused(
                f"preset {self.preset!r} has {session.adapters} adapters, the job weighs "
                f"{self.experts}",
                "remote.adapters",
            )
        return session

    def _refused(self, reason: str, param: str) -> QuestionRefusedError:
        return QuestionRefusedError(self.server.who, reason, param=param)
