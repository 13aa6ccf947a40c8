"""llama.cpp's server: the candidate is a list of adapter scales in every request.

Scales are exact (sum of beta_i times the update of expert i), negative ones included; there is no
alpha. The server tells log-probabilities of generated tokens only, so an answer is scored by the
alternatives to the first token that it generates: answers of one token, as the labels of choice
rows are.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from evomerge.connectors.errors import QuestionRefusedError
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.lorax import Texts, weights
from evomerge.connectors.remote import Asked, PlacedModel, Said
from evomerge.connectors.server import Most, Server, Tally
from evomerge.connectors.shapes import entries, logprob, mapping
from evomerge.connectors.together import together
from evomerge.optimizers.candidate import Candidate

# Alternatives asked for beside the generated token.
ALTERNATIVES = 100
# Newer builds call it by the one name, the README's example by the other.
_PROBABILITIES = ("completion_probabilities", "probs")

Scales = Sequence[Mapping[str, float]]


def completion_body(prompt: str, scales: Scales, alternatives: int) -> dict[str, Any]:
    """A prompt of which the first generated token's alternatives are wanted.

    `lora` lists every adapter of the server: what is left out or empty would mean its global
    scales. The cache is off, for it would hold another candidate's states.
    """
    return {
        "prompt": prompt,
        "n_predict": 1,
        "n_probs": alternatives,
        "temperature": 0,
        "post_sampling_probs": False,
        "cache_prompt": False,
        "lora": [dict(scale) for scale in scales],
    }


def all_scales(known: Sequence[int], ids: Sequence[int], candidate: Candidate) -> Scales:
    """A scale for every adapter of the server; those that are not in the pool are off.

    Raises:
        ValueError: see `weights`.
    """
    chosen = dict(zip(ids, weights(candidate), strict=True))
    return [{"id": number, "scale": chosen.get(number, 0.0)} for number in known]


def read_adapters(answer: Any) -> list[int]:
    """The ids of the adapters that a server has.

    Raises:
        BadAnswerError: it is no such list.
    """
    if not isinstance(answer, list):
        raise BadAnswerError("the adapters are no list")
    found = [mapping(one, "an adapter").get("id") for one in answer]
    if not all(isinstance(one, int) for one in found):
        raise BadAnswerError("an adapter has no number")
    return [one for one in found if isinstance(one, int)]


def read_tokens(answer: Any) -> list[int]:
    """The ids of a tokenised text, however they are dressed.

    Raises:
        BadAnswerError: there are none.
    """
    tokens = mapping(answer, "the answer").get("tokens")
    if not isinstance(tokens, list):
        raise BadAnswerError("no tokens in the answer")
    found = [token.get("id") if isinstance(token, dict) else token for token in tokens]
    if not all(isinstance(one, int) for one in found):
        raise BadAnswerError("a token has no id")
    return [one for one in found if isinstance(one, int)]


def read_alternatives(answer: Any) -> dict[int, float]:
    """Log-probabilities of the first generated token and its alternatives, by id.

    Raises:
        BadAnswerError: there are none.
    """
    whole = mapping(answer, "the answer")
    name = next((one for one in _PROBABILITIES if one in whole), _PROBABILITIES[0])
    first = mapping(entries(whole, name)[0], "a token")
    found: dict[int, float] = {}
    others = first.get("top_logprobs") or []
    if not isinstance(others, list):
        raise BadAnswerError("the alternatives are no list")
    for token in [first, *(mapping(one, "an alternative") for one in others)]:
        number, value = token.get("id"), logprob(token.get("logprob"))
        if isinstance(number, int) and value is not None:
            found[number] = value
    if not found:
        raise BadAnswerError("no token with an id and a log-probability")
    return found


def label_logprobs(found: Mapping[int, float], labels: Sequence[int]) -> list[float]:
    """Log-probabilities of labels; those not among the alternatives share what is left.

    A missing label has at most the probability of the last alternative, and an even share of
    the mass that no alternative has.
    """
    missing = [label for label in labels if label not in found]
    left = max(1.0 - sum(map(math.exp, found.values())), 1e-12) / max(1, len(missing))
    floor = min(min(found.values()), math.log(left))
    return [found.get(label, floor) for label in labels]


@dataclass(frozen=True)
class _Label:
    """An answer as the token that it is, behind a context of so many tokens."""

    token: int
    context: int


@dataclass
class LlamaCppMerger:
    """A `Merger` over one llama.cpp server.

    Attributes:
        server: whom to ask.
        texts: how examples become text; without end-of-text.
        ids: the adapters there, in the candidates' order.
        alternatives: tokens asked for in the first place of an answer.
    """

    server: Server
    texts: Texts
    ids: Sequence[int]
    alternatives: int = ALTERNATIVES
    _known: list[int] | None = None
    _labels: dict[tuple[str, str], _Label] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def check(self, texts: Sequence[Asked]) -> None:
        """See `Merger.check`.

        Raises:
            QuestionRefusedError: a raw text, or an answer that is empty.
        """
        for text in texts:
            if text.example.kind == "text" or not text.answer.strip():
                raise QuestionRefusedError(
                    self.server.who,
                    f"row {text.example.row}: llama.cpp scores answers of one token to a prompt",
                    param="objective.datasets",
                    requests=0,
                )

    def most(self, texts: Sequence[Asked]) -> Most:
        """See `Merger.most`: no token is shorter than a byte."""
        contexts = [self.texts.context(group[0].example) for group in _grouped(texts)]
        size = sum(len(context.encode()) + 1 for context in contexts)
        return Most(len(contexts), size, len(contexts))

    def opening(self, texts: Sequence[Asked]) -> Most:
        """See `Merger.opening`: tokenising costs requests only."""
        new = [text for text in texts if self._key(text) not in self._labels]
        contexts = {self.texts.context(text.example) for text in new}
        return Most((self._known is None) + len(contexts) + len(new))

    async def open(self, texts: Sequence[Asked], tally: Tally) -> None:
        """See `Merger.open`.

        Raises:
            QuestionRefusedError: the server has no such adapter, or an answer is not one token.
        """
        async with self._lock:
            if self._known is None:
                self._known = await self._adapters(tally)
            new = [text for text in texts if self._key(text) not in self._labels]
            contexts = sorted({self.texts.context(text.example) for text in new})
            given = await together([self._tokens(context, tally) for context in contexts])
            before = dict(zip(contexts, given, strict=True))
            wholes = await together([self._tokens(self.texts.whole(one), tally) for one in new])
            for text, whole in zip(new, wholes, strict=True):
                context = before[self.texts.context(text.example)]
                self._labels[self._key(text)] = self._label(text, context, whole)

    @asynccontextmanager
    async def placed(self, candidate: Candidate, tally: Tally) -> AsyncIterator[PlacedModel]:
        """See `Merger.placed`: nothing stays at the server, each request carries it all."""
        yield _Placed(self, all_scales(self._known or self.ids, self.ids, candidate), tally)

    async def score(self, texts: Sequence[Asked], scales: Scales, tally: Tally) -> list[Said]:
        """Scores of texts with one context, in one request."""
        labels = [self._labels[self._key(text)] for text in texts]
        body = completion_body(self.texts.context(texts[0].example), scales, self.alternatives)
        found = await self.server.post(
            "/completion", body, read_alternatives, tally, labels[0].context
        )
        tally.tokens += labels[0].context
        numbers = label_logprobs(found, [label.token for label in labels])
        return [Said(-number, 1) for number in numbers]

    def _key(self, text: Asked) -> tuple[str, str]:
        return self.texts.context(text.example), text.answer

    async def _adapters(self, tally: Tally) -> list[int]:
        known = await self.server.get("/lora-adapters", read_adapters, tally)
        unknown = [number for number in self.ids if number not in known]
        if unknown:
            raise QuestionRefusedError(
                self.server.who,
                f"it has no adapter {unknown[0]}; it has {', '.join(map(str, known)) or 'none'}",
                param="remote.adapters",
            )
        return known

    async def _tokens(self, text: str, tally: Tally) -> list[int]:
        body = {"content": text, "add_special": True}
        return await self.server.post("/tokenize", body, read_tokens, tally)

    def _label(self, text: Asked, context: Sequence[int], whole: Sequence[int]) -> _Label:
        if not context or list(whole[:-1]) != list(context):
            raise QuestionRefusedError(
                self.server.who,
                f"row {text.example.row}: answer {text.answer[:40]!r} is not one token of this "
                "model, and llama.cpp scores no longer ones",
                param="objective.datasets",
            )
        return _Label(whole[-1], len(context))


@dataclass(frozen=True)
class _Placed:
    merger: LlamaCppMerger
    scales: Scales
    tally: Tally

    async def score(self, texts: Sequence[Asked]) -> Sequence[Said]:
        works = [self.merger.score(group, self.scales, self.tally) for group in _grouped(texts)]
        return [said for part in await together(works) for said in part]


def _grouped(texts: Sequence[Asked]) -> list[list[Asked]]:
    """Texts of one context stand together, as the options of a row do."""
    groups: list[list[Asked]] = []
    for text in texts:
        if groups and groups[-1][0].example is text.example:
            groups[-1].append(text)
        else:
            groups.append([text])
    return groups
