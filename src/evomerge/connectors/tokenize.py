"""Tokens of questions, counted by servers that count them for nothing and generate nothing.

vLLM and this service take `{"model", "prompt"}` or `{"model", "messages"}` and tell a `count`;
llama.cpp's server takes `{"content"}` and gives the `tokens`. Both beside the version, at
`/tokenize` of the server's root.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from evomerge.connectors.client import Call, Caller
from evomerge.connectors.errors import AskError
from evomerge.connectors.expert import ApiExpert, Capabilities, Tokenizes
from evomerge.connectors.question import Endpoint, Question
from evomerge.connectors.server import root

PATH = "/tokenize"
FORMS: tuple[Tokenizes, ...] = ("vllm", "llama_cpp")
# Of one count, and of all counts together: nobody waits for long for what is only an estimate.
SECONDS = 10.0


async def token_counts(
    caller: Caller, expert: ApiExpert, questions: Sequence[Question]
) -> list[int] | None:
    """Input tokens of each question, as the expert's server counts them. Nothing is generated.

    None where it does not tokenize, or any count fails or takes too long.
    """
    known = expert.capabilities
    if known.tokenizes is None or not questions:
        return None
    form = known.tokenizes
    # llama.cpp is given the text alone: what its template adds was counted by the probe.
    beside = known.overhead_tokens if form == "llama_cpp" else 0
    try:
        async with asyncio.timeout(SECONDS):
            # The first one by itself: a server that is away is asked once, and not for each.
            first = await _count(caller, form, questions[0])
            if first is None:
                return None
            others = await asyncio.gather(
                *(_count(caller, form, question) for question in questions[1:])
            )
    except TimeoutError:
        return None
    counts = [first, *(one for one in others if one is not None)]
    if len(counts) < len(questions):
        return None
    return [
        count + beside * max(1, len(question.prompts))
        for count, question in zip(counts, questions, strict=True)
    ]


async def find_tokenizer(
    caller: Caller, found: Capabilities, counted: Sequence[tuple[Question, int]]
) -> Capabilities:
    """How a server tokenizes, believed only if it agrees with what it counted when it was asked.

    Args:
        counted: questions that it answered, each with the input tokens that it counted. What its
            template adds must be the same for all of them; for vLLM's form, whose server knows
            the template, nothing.
    """
    for form in FORMS:
        gaps = set()
        for question, tokens in counted:
            try:
                async with asyncio.timeout(SECONDS):
                    count = await _count(caller, form, question)
            except TimeoutError:
                count = None
            gaps.add(None if count is None else tokens - count)
            if count is None:
                break
        gap = gaps.pop() if len(gaps) == 1 else None
        if gap == 0 and form == "vllm":
            return replace(found, tokenizes=form)
        if gap is not None and gap >= 0 and form == "llama_cpp":
            return replace(found, tokenizes=form, overhead_tokens=gap)
    return found


class _EnoughError(Exception):
    """It was asked once."""


async def _count(caller: Caller, form: Tokenizes, question: Question) -> int | None:
    """Tokens of all texts of a question; None where the server does not say."""
    counts = [
        await _told(caller, form, question.endpoint, body) for body in _bodies(form, question)
    ]
    return None if None in counts else sum(count for count in counts if count is not None)


async def _told(
    caller: Caller, form: Tokenizes, endpoint: Endpoint, body: dict[str, Any]
) -> int | None:
    sent = False

    async def once(_: Call) -> None:
        nonlocal sent
        if sent:
            raise _EnoughError
        sent = True

    call = Call(replace(endpoint, base_url=root(endpoint.base_url)), once)
    try:
        return await caller.post(call, PATH, body, read=lambda said: _read(form, said))
    except (AskError, _EnoughError):
        return None


def _bodies(form: Tokenizes, question: Question) -> list[dict[str, Any]]:
    if form == "llama_cpp":
        texts = question.prompts or ("".join(one.content for one in question.messages),)
        return [{"content": text, "add_special": True} for text in texts]
    model = question.endpoint.model
    if question.messages:
        turns = [{"role": one.role, "content": one.content} for one in question.messages]
        return [{"model": model, "messages": turns}]
    return [{"model": model, "prompt": prompt} for prompt in question.prompts]


def _read(form: Tokenizes, said: Any) -> int | None:
    """The count in an answer. Another shape is no fault to retry: it is another server."""
    if not isinstance(said, dict):
        return None
    if form == "llama_cpp":
        tokens = said.get("tokens")
        # To what it does not know as text it answers with no tokens.
        return len(tokens) if isinstance(tokens, list) and tokens else None
    count = said.get("count")
    return count if isinstance(count, int) and count > 0 else None
