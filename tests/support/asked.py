"""Output merges of each kind, and experts that answer by rote."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.outputs import ECHOING, echoed

from evomerge.app.outputs import KnownExpert, StoredOutput
from evomerge.app.schemas.api_experts import ApiDefinition
from evomerge.connectors.client import Hook
from evomerge.connectors.expert import Capabilities
from evomerge.connectors.openai import UNPROBED
from evomerge.connectors.output.task import Task
from evomerge.connectors.question import Answer, Completion, Question
from evomerge.merging.output.fusion import FusionKind
from evomerge.merging.output.merge import OutputMerge

NAMES = ("ann", "bob", "cy", "dropped")
BETA = (0.6, 0.5, -0.2, 0.0)
VOTES: Mapping[str, tuple[FusionKind, str]] = {
    "choices": ("choice", "choice_accuracy"),
    "words": ("free_text", "token_f1"),
    "items": ("extraction", "item_f1"),
    "texts": ("scored_text", "cross_entropy"),
}
# What each says, by kind: ann and bob against cy, or each by itself.
SAYS: Mapping[str, Mapping[str, str]] = {
    "choices": {"ann": "B", "bob": "B", "cy": "A"},
    "words": {"ann": "the big red house", "bob": "the big red barn", "cy": "blue"},
    "items": {"ann": "film: Alien; year: 1979", "bob": "film: Alien", "cy": "year: 1979"},
}
# What each gives to every token of a text, which are its letters.
ECHOES: Mapping[str, float] = {"ann": -0.5, "bob": -2.0}


def stored(name: str, base_url: str = "http://server:8000/v1", **more: Any) -> StoredOutput:
    """A finished merge over four experts, the last of which it drops."""
    kind, metric = VOTES[name]
    merge = OutputMerge(
        kind=kind,
        metric=metric,
        experts=NAMES,
        alpha=(1.0, 1.0, 1.0, 1.0),
        beta=BETA,
        threshold=0.5 if kind == "extraction" else None,
        **{"choices": ("rome", "paris") if kind == "choice" else None, **more},
    )
    experts = [
        KnownExpert(
            each,
            ApiDefinition.model_validate(
                {"provider": "openai", "base_url": base_url, "model": f"{name}/{each}"}
            ),
            ECHOING if kind == "scored_text" else Capabilities(interface="chat"),
        )
        for each in NAMES
    ]
    return StoredOutput(merge, Task(kind, metric, max_tokens=8), tuple(experts))


def served_expert(name: str, base_url: str, model: str | None = None, **more: Any) -> KnownExpert:
    """An expert that another service of ours serves; `more` is of its definition."""
    definition = {
        "provider": "openai",
        "base_url": base_url,
        "model": model or name,
        "credential": "first",
        **more,
    }
    can = replace(ECHOING, alternatives=5)
    return KnownExpert(name, ApiDefinition.model_validate(definition), can)


@dataclass
class FakeAsker:
    """Answers as `SAYS` has it, and echoes as `ECHOES` has it.

    Attributes:
        fails: called with the expert's name before it answers; may raise.
        cut: tokens of a text, as an expert cuts it.
        asked: names in the order they were asked.
        under_way: how many were asked at once at most.
    """

    fails: Callable[[str], None] = lambda name: None
    cut: Callable[[str, str], Sequence[str]] = lambda name, text: text
    asked: list[str] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    async def ask(
        self,
        question: Question,
        capabilities: Capabilities = UNPROBED,
        on_attempt: Hook | None = None,
    ) -> Answer:
        kind, _, name = question.endpoint.model.partition("/")
        self.asked.append(name)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await asyncio.sleep(0)  # lets the others begin
        self.under_way -= 1
        self.fails(name)
        if question.echo:
            return echoed(*(self.echo(name, text) for text in question.prompts))
        return Answer((Completion(SAYS[kind][name], "stop"),), 10, 3)

    def echo(self, name: str, text: str) -> list[tuple[str, float | None]]:
        first, *rest = self.cut(name, text)
        return [(first, None), *((token, ECHOES[name]) for token in rest)]
