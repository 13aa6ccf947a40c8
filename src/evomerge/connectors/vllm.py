"""vLLM with runtime adapters: the candidate is written as a PEFT folder, loaded, scored, unloaded.

The server is started with `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True. Texts travel
as token ids, so that the scored tokens are exactly those of a local evaluation.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from evomerge.connectors.errors import (
    AskError,
    QuestionRefusedError,
    UnknownModelError,
    UnusableAnswerError,
)
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.remote import Asked, PlacedModel, Said, summed
from evomerge.connectors.server import Most, Server, Tally
from evomerge.connectors.shapes import entries, logprob, mapping, word
from evomerge.connectors.shelf import Shelf
from evomerge.connectors.together import finished, together
from evomerge.evaluation.example import Example
from evomerge.optimizers.candidate import Candidate

logger = logging.getLogger(__name__)

# What `--max-lora-rank` takes; an adapter is padded with zeros to the next of them.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

# Prompts of one request at most.
BATCH_ROWS = 32
_BATCH_TOKENS = 8192
_PROBE_TOKENS = 4
_PROBE_TOLERANCE = 1e-3
_ID = "token_id:"


class Row(Protocol):
    """Token ids of which those from `start` on are scored."""

    @property
    def tokens(self) -> tuple[int, ...]: ...

    @property
    def start(self) -> int: ...


class Encoder(Protocol):
    """Makes rows of examples, as the base's tokenizer does."""

    def scored(self, example: Example, answer: str | None = None) -> Row: ...


def score_body(model: str, rows: Sequence[Row]) -> dict[str, Any]:
    """Prompts whose own log-probabilities are wanted.

    One token is generated and dropped: max_tokens 0 is not obeyed by every version.
    """
    return {
        "model": model,
        "prompt": [list(row.tokens) for row in rows],
        "max_tokens": 1,
        "echo": True,
        "logprobs": 1,
        "temperature": 0,
    }


def read_scores(answer: Any, rows: Sequence[Row]) -> list[Said]:
    """The answers' scores, by the choices' own numbers.

    Raises:
        BadAnswerError: not one choice a row, or not one number a token.
    """
    choices = entries(mapping(answer, "the answer"), "choices")
    found = {_index(one, at): one for at, one in enumerate(choices)}
    if found.keys() != set(range(len(rows))):
        raise BadAnswerError(f"{len(choices)} choices for {len(rows)} prompts")
    return [_said(_numbers(found[at]), row) for at, row in enumerate(rows)]


def probe_body(model: str, tokens: Sequence[int]) -> dict[str, Any]:
    """A few tokens of the model's own choice, told by their ids."""
    return {
        "model": model,
        "prompt": list(tokens),
        "max_tokens": _PROBE_TOKENS,
        "logprobs": 1,
        "temperature": 0,
        "return_tokens_as_token_ids": True,
    }


def read_probe(answer: Any) -> list[tuple[int, float]]:
    """The generated tokens' ids and log-probabilities.

    Raises:
        BadAnswerError: they are not told.
    """
    choice = _first_choice(answer)
    numbers = _numbers(choice)
    tokens = [word(one) for one in entries(mapping(choice.get("logprobs"), "logprobs"), "tokens")]
    if not all(token.startswith(_ID) and token[len(_ID) :].isdecimal() for token in tokens):
        raise BadAnswerError("tokens are not told by their ids, so echo cannot be verified")
    if len(numbers) != len(tokens) or None in numbers:
        raise BadAnswerError("generated tokens lack log-probabilities")
    return [
        (int(token[len(_ID) :]), number)
        for token, number in zip(tokens, numbers, strict=True)
        if number is not None
    ]


@dataclass
class VllmMerger:
    """A `Merger` over one or several replicas of a vLLM server.

    Attributes:
        replicas: each is given every candidate, and its share of the texts; their endpoint's model
            is the base.
        encoder: makes rows of texts.
        shelf: where candidates are materialised.
    """

    replicas: Sequence[Server]
    encoder: Encoder
    shelf: Shelf
    _verified: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def check(self, texts: Sequence[Asked]) -> None:
        """See `Merger.check`."""
        for text in texts:
            self.encoder.scored(text.example, text.answer)

    def most(self, texts: Sequence[Asked]) -> Most:
        """See `Merger.most`."""
        rows = [self.encoder.scored(text.example, text.answer) for text in texts]
        requests = len(batched(rows, len(self.replicas))) + 2 * len(self.replicas)
        return Most(requests, sum(len(row.tokens) for row in rows), len(rows))

    def opening(self, texts: Sequence[Asked]) -> Most:
        """See `Merger.opening`."""
        if self._verified:
            return Most()
        row = self.encoder.scored(texts[0].example, texts[0].answer)
        once = Most(2, 2 * row.start + _PROBE_TOKENS, _PROBE_TOKENS + 1)
        return len(self.replicas) * once

    async def open(self, texts: Sequence[Asked], tally: Tally) -> None:
        """See `Merger.open`: no echo is trusted that was not seen to be right, on any replica.

        Raises:
            UnusableAnswerError: echoed tokens have other numbers than they had when generated.
        """
        async with self._lock:
            if not self._verified:
                row = self.encoder.scored(texts[0].example, texts[0].answer)
                prompt = row.tokens[: row.start]
                await together([_verify(replica, prompt, tally) for replica in self.replicas])
                self._verified = True

    @asynccontextmanager
    async def placed(self, candidate: Candidate, tally: Tally) -> AsyncIterator[PlacedModel]:
        """See `Merger.placed`: loaded on every replica, and unloaded whatever happens."""
        if not candidate.beta.any():
            yield _Placed(self, self.replicas[0].endpoint.model, tally)
            return
        async with self.shelf.holding(candidate) as folder:
            try:
                await together([_load(one, folder, tally) for one in self.replicas])
                yield _Placed(self, folder.name, tally)
            finally:
                unloading = [_unload(one, folder.name, tally) for one in self.replicas]
                await finished(together(unloading))

    async def score(self, model: str, texts: Sequence[Asked], tally: Tally) -> list[Said]:
        """Score texts under a model's name, each batch on the next replica."""
        rows = [self.encoder.scored(text.example, text.answer) for text in texts]
        works = [
            _score(self.replicas[number % len(self.replicas)], model, batch, tally)
            for number, batch in enumerate(batched(rows, len(self.replicas)))
        ]
        return [said for part in await together(works) for said in part]


@dataclass(frozen=True)
class _Placed:
    merger: VllmMerger
    model: str
    tally: Tally

    async def score(self, texts: Sequence[Asked]) -> Sequence[Said]:
        return await self.merger.score(self.model, texts, self.tally)


def batched(rows: Sequence[Row], replicas: int = 1) -> list[list[Row]]:
    """Rows in order, cut into requests: an echo of too much at once can exhaust a server."""
    batches: list[list[Row]] = []
    most, tokens = min(BATCH_ROWS, math.ceil(len(rows) / replicas)), 0
    for row in rows:
        tokens += len(row.tokens)
        if not batches or tokens > _BATCH_TOKENS or len(batches[-1]) == most:
            batches.append([])
            tokens = len(row.tokens)
        batches[-1].append(row)
    return batches


async def _score(server: Server, model: str, rows: Sequence[Row], tally: Tally) -> list[Said]:
    tokens = sum(len(row.tokens) for row in rows)
    said = await server.post(
        "/v1/completions",
        score_body(model, rows),
        lambda answer: read_scores(answer, rows),
        tally,
        tokens,
    )
    tally.tokens += tokens
    return said


async def _load(server: Server, folder: Path, tally: Tally) -> None:
    body = {"lora_name": folder.name, "lora_path": str(folder)}
    try:
        await server.tell("/v1/load_lora_adapter", json.dumps(body).encode(), tally)
    except QuestionRefusedError as error:
        # It is there after an answer that got lost, or since a crash of ours: the content is
        # in the name, so it is the right one.
        if "already" not in error.reason:
            raise


async def _unload(server: Server, name: str, tally: Tally) -> None:
    """Best effort: what cannot be unloaded must not hide why."""
    body = json.dumps({"lora_name": name}).encode()
    try:
        await server.tell("/v1/unload_lora_adapter", body, tally)
    except (UnknownModelError, QuestionRefusedError):
        return  # it was never loaded there
    except AskError as error:
        logger.warning("adapter %s may still be loaded: %s", name, error)


async def _verify(server: Server, prompt: Sequence[int], tally: Tally) -> None:
    model = server.endpoint.model
    made = await server.post("/v1/completions", probe_body(model, prompt), read_probe, tally)
    row = _Ids((*prompt, *(token for token, _ in made)), len(prompt))
    echoed = await server.post(
        "/v1/completions",
        score_body(model, [row]),
        lambda answer: _numbers(_first_choice(answer)),
        tally,
    )
    for (_, one), other in zip(made, echoed[row.start :], strict=False):
        if other is None or not math.isclose(one, other, abs_tol=_PROBE_TOLERANCE):
            raise UnusableAnswerError(
                server.who,
                f"an echoed token has log-probability {other}, and had {one:.6g} when it was "
                "generated: this server's prompt log-probabilities cannot be used",
            )


@dataclass(frozen=True)
class _Ids:
    tokens: tuple[int, ...]
    start: int


def _index(choice: Any, place: int) -> int:
    """Which prompt a choice is about; by its place where it does not say."""
    index = mapping(choice, "a choice").get("index", place)
    if not isinstance(index, int):
        raise BadAnswerError(f"the index of a choice is {type(index).__name__}, not a number")
    return index


def _first_choice(answer: Any) -> Mapping[str, Any]:
    return mapping(entries(mapping(answer, "the answer"), "choices")[0], "a choice")


def _numbers(choice: Mapping[str, Any]) -> list[float | None]:
    said = entries(mapping(choice.get("logprobs"), "logprobs"), "token_logprobs")
    return [logprob(one) for one in said]


def _said(numbers: Sequence[float | None], row: Row) -> Said:
    if not 0 <= len(numbers) - len(row.tokens) <= 1:
        raise BadAnswerError(f"{len(numbers)} numbers for a prompt of {len(row.tokens)} tokens")
    return summed(numbers[row.start : len(row.tokens)])
