"""LoRAX: adapters that it knows are merged by `merged_adapters`, ours by a folder that it reads.

`merged_adapters` with strategy linear sums the weighted A and the weighted B each by itself: the
paper's composition `factor`, cross terms and all. It takes no alpha, ignores the weight of a single
adapter, and wants equal ranks. A PEFT folder is exact, whatever the composition.

Texts are scored by the log-probabilities of the prompt's own tokens (prefill). The answer begins
where the tokens of the whole text leave those of the context.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from evomerge.connectors.errors import QuestionRefusedError, UnusableAnswerError
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.remote import Asked, PlacedModel, Said, summed
from evomerge.connectors.server import Most, Server, Tally
from evomerge.connectors.shapes import entries, logprob, mapping
from evomerge.connectors.shelf import Shelf
from evomerge.connectors.together import together
from evomerge.evaluation.example import Example
from evomerge.optimizers.candidate import Candidate

Parameters = Mapping[str, Any]
Prefill = Sequence[tuple[int, float | None]]

# Before its first answer a server's tokens can be guessed only.
_BYTES_A_TOKEN = 4


@dataclass(frozen=True)
class Texts:
    """Examples as text.

    Attributes:
        answer_prefix: written between prompt and answer.
        end: the base's end-of-text as its tokenizer spells it, written behind the answer; empty
            for none.
    """

    answer_prefix: str = " "
    end: str = ""

    def context(self, example: Example) -> str:
        """What is given: a chat row as its plain rendering."""
        return example.prompt

    def whole(self, text: Asked) -> str:
        """Context and answer; a raw text takes neither prefix nor end."""
        if text.example.kind == "text":
            return text.answer
        return f"{self.context(text.example)}{self.answer_prefix}{text.answer}{self.end}"


def generate_body(inputs: str, adapter: Parameters) -> dict[str, Any]:
    """A text whose own log-probabilities are wanted; one token is generated, for 0 is refused."""
    parameters = {
        "max_new_tokens": 1,
        "do_sample": False,
        "details": True,
        "decoder_input_details": True,
        **adapter,
    }
    return {"inputs": inputs, "parameters": parameters}


def merged(ids: Sequence[str], candidate: Candidate) -> Parameters:
    """A candidate as weights of adapters that the server knows.

    One id alone would lose its weight, so a second goes with it at weight 0.

    Args:
        ids: of the experts, at least two.
        candidate: (1, N); every alpha is one.

    Raises:
        ValueError: fewer than two ids, layer groups, or an alpha that cannot travel.
    """
    if len(ids) < 2:
        raise ValueError(f"ids={list(ids)!r}: LoRAX ignores the weight of one adapter alone")
    beta = weights(candidate)
    kept = [number for number, weight in enumerate(beta) if weight != 0.0]
    if not kept:
        return {}
    if len(kept) == 1:
        kept = sorted({kept[0], 0 if kept[0] else 1})
    chosen = {"ids": [ids[number] for number in kept], "weights": [beta[number] for number in kept]}
    return {"merged_adapters": {**chosen, "merge_strategy": "linear"}}


def weights(candidate: Candidate) -> list[float]:
    """beta of a candidate whose alpha is one throughout, as a list of N.

    Raises:
        ValueError: it has layer groups, or an alpha other than one.
    """
    if candidate.groups != 1:
        raise ValueError(f"groups={candidate.groups}: the provider weighs whole adapters")
    if (candidate.alpha != 1.0).any():
        raise ValueError("alpha: the provider keeps adapters whole, every alpha must be one")
    beta: list[float] = candidate.beta[0].tolist()
    return beta


def read_prefill(answer: Any) -> list[tuple[int, float | None]]:
    """Ids and log-probabilities of the prompt's tokens; the first has none (NaN or null).

    Raises:
        BadAnswerError: there are none.
    """
    details = mapping(mapping(answer, "the answer").get("details"), "details")
    found = []
    for token in entries(details, "prefill"):
        number = mapping(token, "a token of the prompt").get("id")
        if not isinstance(number, int):
            raise BadAnswerError("a token of the prompt has no id")
        found.append((number, logprob(token.get("logprob"))))
    return found


def start(context: Sequence[int], whole: Sequence[int]) -> int:
    """Where the answer begins: where the whole leaves its context, and never at token 0."""
    shared = 0
    for one, other in zip(context, whole, strict=False):
        if one != other:
            break
        shared += 1
    return max(1, shared)


@dataclass
class LoraxMerger:
    """A `Merger` over one LoRAX server.

    Attributes:
        server: whom to ask.
        texts: how examples become text.
        ids: the adapters there, in the candidates' order; empty with a shelf.
        shelf: where candidates are materialised, if they are.
    """

    server: Server
    texts: Texts
    ids: Sequence[str] = ()
    shelf: Shelf | None = None
    _contexts: dict[str, list[int]] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def check(self, texts: Sequence[Asked]) -> None:
        """See `Merger.check`.

        Raises:
            QuestionRefusedError: an answer is empty.
        """
        for text in texts:
            if not f"{text.answer}{self.texts.end}".strip():
                row = text.example.row
                raise QuestionRefusedError(
                    self.server.who, f"row {row}: the answer is empty", requests=0
                )

    def most(self, texts: Sequence[Asked]) -> Most:
        """See `Merger.most`: no token is shorter than a byte."""
        size = sum(len(self.texts.whole(text).encode()) + 1 for text in texts)
        return Most(len(texts), size, len(texts))

    def opening(self, texts: Sequence[Asked]) -> Most:
        """See `Merger.opening`."""
        new = self._new(texts)
        return Most(len(new), sum(len(text.encode()) + 1 for text in new), len(new))

    async def open(self, texts: Sequence[Asked], tally: Tally) -> None:
        """See `Merger.open`: tokenises every context once, by the base."""
        async with self._lock:
            new = self._new(texts)
            found = await together([self._prefill(text, {}, tally) for text in new])
            for text, tokens in zip(new, found, strict=True):
                self._contexts[text] = [number for number, _ in tokens]

    @asynccontextmanager
    async def placed(self, candidate: Candidate, tally: Tally) -> AsyncIterator[PlacedModel]:
        """See `Merger.placed`."""
        if not candidate.beta.any():
            yield _Placed(self, {}, tally)
        elif self.shelf is None:
            yield _Placed(self, merged(self.ids, candidate), tally)
        else:
            async with self.shelf.holding(candidate) as folder:
                adapter = {"adapter_id": str(folder), "adapter_source": "local"}
                yield _Placed(self, adapter, tally)

    async def score(self, text: Asked, adapter: Parameters, tally: Tally) -> Said:
        """One text's score."""
        tokens = await self._prefill(self.texts.whole(text), adapter, tally)
        tally.tokens += len(tokens)
        context = self._contexts.get(self.texts.context(text.example), [])
        begin = start(context, [number for number, _ in tokens])
        if begin >= len(tokens):
            raise UnusableAnswerError(
                self.server.who, f"row {text.example.row}: no token of the answer was scored"
            )
        return summed([number for _, number in tokens[begin:]])

    def _new(self, texts: Sequence[Asked]) -> list[str]:
        """Contexts whose tokens are not known yet."""
        contexts = {
            self.texts.context(text.example) for text in texts if text.example.kind != "text"
        }
        return sorted(filter(None, contexts - self._contexts.keys()))

    async def _prefill(self, text: str, adapter: Parameters, tally: Tally) -> Prefill:
        guess = len(text.encode()) // _BYTES_A_TOKEN + 1
        body = generate_body(text, adapter)
        return await self.server.post("/generate", body, read_prefill, tally, guess)


class _Scorer(Protocol):
    async def score(self, text: Asked, adapter: Parameters, tally: Tally) -> Said: ...


@dataclass(frozen=True)
class _Placed:
    merger: _Scorer
    adapter: Parameters
    tally: Tally

    async def score(self, texts: Sequence[Asked]) -> Sequence[Said]:
        return await together([self.merger.score(text, self.adapter, self.tally) for text in texts])
