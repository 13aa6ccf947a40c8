"""Find out what an endpoint can do, in few and tiny requests. What was not seen is not believed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from evomerge.connectors.client import Call, Caller, Hook
from evomerge.connectors.errors import (
    ProviderDownError,
    QuestionRefusedError,
    UnknownModelError,
    UnusableAnswerError,
)
from evomerge.connectors.expert import Capabilities
from evomerge.connectors.question import (
    Answer,
    Completion,
    Endpoint,
    Interface,
    Message,
    Question,
    Sampling,
    Token,
)
from evomerge.connectors.tokenize import find_tokenizer

PROMPT = "The capital of France is"
OTHER_PROMPT = "One, two, three, four,"
LONG_PROMPT = (
    "The river rises in the hills above the town, runs past two mills and a bridge of grey stone, "
    "and reaches the sea after forty miles. In spring it floods the meadows; in late summer "
    "children walk across it without wetting their knees. " + PROMPT
)
TOKENS = 4
ALTERNATIVES = (20, 5, 1)
TOLERANCE = 1e-3
# Sends of one optional request: one more than 1, for a fault that passes.
SENDS = 2
ZERO_SECONDS = 15.0


class Asking(Protocol):
    """What a probe needs of a connector (`ProbedConnector`)."""

    def refused(self, endpoint: Endpoint) -> set[str]:
        """See `ProbedConnector.refused`."""
        ...

    async def ask(
        self, question: Question, capabilities: Capabilities, on_attempt: Hook | None
    ) -> Answer:
        """See `ProbedConnector.ask`."""
        ...


async def probe(
    connector: Asking,
    endpoint: Endpoint,
    interface: Interface | None,
    sampling: Sampling,
    clock: Callable[[], float],
    caller: Caller | None = None,
) -> Capabilities:
    """What this endpoint can do.

    About eight requests of at most a few tokens each. Log-probabilities of a prompt count only if
    echoing the model's own greedy answer gives the numbers that it had when it was generated.

    Args:
        interface: how to ask; None takes chat, and completions where there is no chat.
        sampling: as the expert will be asked; tells which parameters are refused.
        clock: seconds since the epoch, for `checked_at`.
        caller: to ask beside the connector whether the server tokenizes; None: it is not asked.

    Raises:
        AskError: it cannot be reached, or does not generate.
    """
    one = _Probe(connector, endpoint, replace(sampling, max_tokens=TOKENS), caller)
    found, short = await one.generate(interface)
    found = await one.count_tokens(found, short)
    found, greedy = await one.find_alternatives(found)
    if found.interface == "completions":
        found, echoed = await one.verify_echo(found, greedy)
        found = await one.try_zero_tokens(found, greedy, echoed)
        found = await one.try_batch(found, greedy)
    found = await one.try_samples(found)
    refused = connector.refused(endpoint)
    return replace(
        found,
        token_limit="max_completion_tokens" if "max_tokens" in refused else "max_tokens",
        unsupported=tuple(sorted(refused)),
        notes=tuple(one.notes),
        checked_at=clock(),
    )


class _EnoughError(Exception):
    """An optional request was sent often enough."""


@dataclass
class _Probe:
    """The steps; each takes what was found so far and gives it back with more."""

    connector: Asking
    endpoint: Endpoint
    sampling: Sampling
    caller: Caller | None = None
    notes: list[str] = field(default_factory=list)

    async def generate(self, interface: Interface | None) -> tuple[Capabilities, Answer]:
        """The one request that must be answered."""
        if interface is not None:
            return await self._generate(Capabilities(interface=interface))
        try:
            return await self._generate(Capabilities(interface="chat"))
        except (UnknownModelError, QuestionRefusedError) as error:
            try:
                found = await self._generate(Capabilities(interface="completions"))
            except (UnknownModelError, QuestionRefusedError):
                # Most servers are asked for chat: why that fails is the better reason.
                raise error from None
            self.notes.append(f"no chat: {error.reason}")
            return found

    async def count_tokens(self, found: Capabilities, short: Answer) -> Capabilities:
        """Bytes by token, and tokens beyond the text, from what two lengths were counted as."""
        question = self._question(found, LONG_PROMPT, max_tokens=1)
        long = await self._must(question, found)
        size, more = len(PROMPT.encode()), len(LONG_PROMPT.encode())
        if long.input_tokens <= short.input_tokens:
            self.notes.append("its count of input tokens does not grow with the text")
            return found
        each = (more - size) / (long.input_tokens - short.input_tokens)
        overhead = max(0, round(short.input_tokens - size / each))
        found = replace(found, bytes_per_token=round(each, 4), overhead_tokens=overhead)
        if self.caller is None or self.endpoint.provider != "openai":
            return found
        asked = (self._question(found, PROMPT), short.input_tokens), (question, long.input_tokens)
        return await find_tokenizer(self.caller, found, asked)

    async def find_alternatives(
        self, found: Capabilities
    ) -> tuple[Capabilities, Completion | None]:
        """How many log-probabilities it gives beside a token's own; the greedy answer with them."""
        for asked in ALTERNATIVES:
            question = self._question(found, PROMPT, temperature=0.0)
            answer = await self._may(
                replace(question, alternatives=asked), found, f"{asked} alternatives"
            )
            if answer is None:
                continue
            said = answer.completions[0]
            if not any(token.logprob is not None for token in said.tokens):
                self.notes.append("log-probabilities were asked for, and not given")
                return found, said
            given = max(len(token.alternatives) for token in said.tokens)
            return replace(found, alternatives=given), said
        return found, None

    async def verify_echo(
        self, found: Capabilities, greedy: Completion | None
    ) -> tuple[Capabilities, tuple[Token, ...]]:
        """Whether echoing the greedy answer gives the numbers that generating it gave."""
        said = _spelled(greedy)
        if not said:
            return found, ()
        text = PROMPT + "".join(token.text for token in said)
        question = self._question(found, text, max_tokens=1, temperature=0.0)
        answer = await self._may(replace(question, alternatives=1, echo=True), found, "echo")
        echoed = answer.completions[0].prompt_tokens if answer is not None else ()
        if not echoed:
            return found, ()
        reason = _difference(said, echoed)
        if reason is not None:
            self.notes.append(f"echo is not believed: {reason}")
            return found, ()
        return replace(found, prompt_logprobs=True), echoed

    async def try_zero_tokens(
        self, found: Capabilities, greedy: Completion | None, echoed: tuple[Token, ...]
    ) -> Capabilities:
        """Whether max_tokens 0 generates nothing. One real server generates without limit then:
        so it is asked for a known text, which a stop ends, and for a few seconds only."""
        said = _spelled(greedy)
        if not found.prompt_logprobs or not said:
            return found
        hoped = replace(found, zero_tokens=True)
        question = self._question(found, PROMPT, max_tokens=0, temperature=0.0)
        stop = (said[-1].text,)
        question = replace(
            question,
            sampling=replace(question.sampling, stop=stop),
            alternatives=1,
            echo=True,
        )
        try:
            async with asyncio.timeout(ZERO_SECONDS):
                answer = await self._may(question, hoped, "max_tokens 0")
        except TimeoutError:
            self.notes.append("max_tokens 0 is not obeyed: it went on generating")
            return found
        if answer is None:
            return found
        # All tokens that come back count as the prompt's here: one more was generated.
        texts = [token.text for token in answer.completions[0].prompt_tokens]
        before = [token.text for token in echoed[: len(echoed) - len(said)]]
        if texts != before or answer.output_tokens != 0:
            self.notes.append("max_tokens 0 is not obeyed: it generated all the same")
            return found
        return hoped

    async def try_batch(self, found: Capabilities, greedy: Completion | None) -> Capabilities:
        """Whether two prompts in one request give two answers, in order."""
        hoped = replace(found, batches=True)
        question = self._question(found, OTHER_PROMPT, temperature=0.0)
        answer = await self._may(
            replace(question, prompts=(OTHER_PROMPT, PROMPT)), hoped, "two prompts at once"
        )
        if answer is None:
            return found
        if greedy is not None and answer.completions[1].text != greedy.text:
            self.notes.append("two prompts at once get other answers than each alone")
            return found
        return hoped

    async def try_samples(self, found: Capabilities) -> Capabilities:
        """Whether one request gives several answers."""
        hoped = replace(found, samples=True)
        question = self._question(found, PROMPT, temperature=1.0)
        answer = await self._may(replace(question, samples=2), hoped, "n=2")
        # A connector may have split it into two requests all the same.
        return hoped if answer is not None and answer.requests == 1 else found

    async def _generate(self, found: Capabilities) -> tuple[Capabilities, Answer]:
        answer = await self._must(self._question(found, PROMPT), found)
        said = answer.completions[0]
        if not said.text and said.finish != "length":
            who = f"{self.endpoint.base_url} {self.endpoint.model}"
            raise UnusableAnswerError(who, "answers with nothing", requests=answer.requests)
        if not said.text:
            self.notes.append(
                f"no text within {TOKENS} tokens: it may think first, and need a larger max_tokens"
            )
        return found, answer

    async def _must(self, question: Question, found: Capabilities) -> Answer:
        return await self.connector.ask(question, found, None)

    async def _may(self, question: Question, hoped: Capabilities, what: str) -> Answer | None:
        """The answer to an optional question; None, and a note, if it is refused or broken."""
        sent = 0

        async def on_attempt(_: Call) -> None:
            nonlocal sent
            sent += 1
            if sent > SENDS:
                raise _EnoughError

        try:
            return await self.connector.ask(question, hoped, on_attempt)
        except (QuestionRefusedError, ProviderDownError, UnusableAnswerError) as error:
            self.notes.append(f"no {what}: {error.reason}")
        except _EnoughError:
            self.notes.append(f"no {what}: no usable answer")
        return None

    def _question(
        self,
        found: Capabilities,
        prompt: str,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
    ) -> Question:
        sampling = self.sampling
        if max_tokens is not None:
            sampling = replace(sampling, max_tokens=max_tokens)
        if temperature is not None:
            sampling = replace(sampling, temperature=temperature, stop=())
        if found.interface == "chat":
            return Question(self.endpoint, (Message("user", prompt),), sampling=sampling)
        return Question(self.endpoint, prompts=(prompt,), sampling=sampling)


def _spelled(said: Completion | None) -> tuple[Token, ...]:
    """The tokens that spell an answer's text: without an end-of-text token behind it."""
    tokens = [] if said is None else [token for token in said.tokens if token.text]
    while tokens and said is not None and not said.text.startswith(_joined(tokens)):
        tokens.pop()
    return tuple(tokens)


def _joined(tokens: Sequence[Token]) -> str:
    return "".join(token.text for token in tokens)


def _difference(said: Sequence[Token], echoed: Sequence[Token]) -> str | None:
    """What sets the end of an echo apart from what was generated; None if it is the same."""
    last = echoed[len(echoed) - len(said) :]
    if [token.text for token in last] != [token.text for token in said]:
        return f"{_joined(said)!r} comes back as other tokens"
    gaps = []
    for old, new in zip(said, last, strict=True):
        if old.logprob is None or new.logprob is None:
            return f"{new.text!r} has no number"
        gaps.append((abs(old.logprob - new.logprob), old, new))
    gap, old, new = max(gaps, key=lambda one: one[0])
    if gap > TOLERANCE:
        return f"{new.text!r} was generated at {old.logprob:.4f}, echoed at {new.logprob:.4f}"
    return None
