"""What a model is asked over its API, and what it answers: values, one form for every provider.

The content of a question is its identity: two equal questions have one key, so that an answer that
was paid for once is found again by any job (credentials are no part of it). Part of the key is the
form in which answers are stored: what was stored in another is not found, and asked again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal, NamedTuple, Protocol, Self

Provider = Literal["openai", "anthropic", "vllm", "lorax", "llama_cpp", "bmm"]
Interface = Literal["chat", "completions"]
Finish = Literal["stop", "length", "content_filter", "other"]
Role = Literal["system", "user", "assistant"]

# Of what `Answer.to_json` makes. Raise it whenever `Answer.from_json` could not read older rows.
ANSWER_FORM = 2


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers.

    Attributes:
        provider: whose wire format it speaks; openai is every OpenAI-compatible server.
        base_url: up to and with the version, such as https://api.openai.com/v1.
        model: its name there.
        credential: name of a credential in the settings, never the secret itself.
    """

    provider: Provider
    base_url: str
    model: str
    credential: str | None = None


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. None leaves a value to the server."""

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Question:
    """One request to one model.

    Attributes:
        endpoint: who is asked.
        messages: the chat so far; empty for the completions interface.
        prompts: the texts to continue; several are one batch, answered in order. Empty for chat.
        sampling: how answers are drawn.
        alternatives: how many log-probabilities are wanted beside each generated token's own;
            None asks for no log-probabilities at all.
        echo: whether the log-probabilities of the prompts' own tokens are wanted.
        samples: independent answers to each prompt (`n` in OpenAI's words).
        sample: which draw this is, where the same question is asked several times on purpose; at
            temperature 0 it is always 0.
        extra: fields of the provider's own that go into the body as they are (LoRA scales, say),
            as JSON text with sorted keys.
    """

    endpoint: Endpoint
    messages: tuple[Message, ...] = ()
    prompts: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    alternatives: int | None = None
    echo: bool = False
    samples: int = 1
    sample: int = 0
    extra: str = "{}"

    @property
    def interface(self) -> Interface:
        return "chat" if self.messages else "completions"

    @cached_property
    def key(self) -> str:
        """SHA-256 of the content and `ANSWER_FORM`.

        Without the credential: who pays does not change the answer.
        """
        # As `asdict` would have it, at a tenth of its time: there may be many thousands of them.
        content = {
            **{one.name: getattr(self, one.name) for one in _FIELDS},
            "endpoint": {k: v for k, v in vars(self.endpoint).items() if k != "credential"},
            "messages": [vars(message) for message in self.messages],
            "sampling": vars(self.sampling),
            "form": ANSWER_FORM,
        }
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return sha256(canonical.encode()).hexdigest()

    @property
    def input_bytes(self) -> int:
        """UTF-8 bytes of everything that the model reads."""
        texts = [*self.prompts, *(message.content for message in self.messages)]
        return sum(len(text.encode()) for text in texts)

    @property
    def most_output_tokens(self) -> int:
        """Tokens that the answer can have at most."""
        return self.sampling.max_tokens * self.samples * max(1, len(self.prompts))


_FIELDS = fields(Question)


class Token(NamedTuple):
    """One token of a text. A tuple, for there may be a hundred in an answer, built anew each time.

    Attributes:
        text: as the provider spells it.
        logprob: natural logarithm of its probability; None where the provider has none (the first
            token of a prompt).
        alternatives: (text, logprob) of the likeliest tokens in its place, likeliest first; may or
            may not hold the token itself.
    """

    text: str
    logprob: float | None
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Completion:
    """One answer to one prompt.

    Attributes:
        text: what was generated (never the echoed prompt).
        finish: why it ended; `length` is an answer cut off, `content_filter` a refusal.
        tokens: of `text`; empty where no log-probabilities were asked for or given.
        prompt_tokens: of the prompt, where `echo` was asked for and given; else empty.
    """

    text: str
    finish: Finish
    tokens: tuple[Token, ...] = ()
    prompt_tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        completions: by prompt and then by sample, `len(prompts) * samples` of them for the
            completions interface and `samples` for chat.
        input_tokens, output_tokens: as the provider counts them; where it does not, as estimated.
        requests: HTTP requests that were sent for it, retries included.
        lost: of them, those that failed and may have been charged all the same.
    """

    completions: tuple[Completion, ...]
    input_tokens: int
    output_tokens: int
    requests: int = 1
    lost: int = 0

    def to_json(self) -> dict[str, Any]:
        """As stored. Finite numbers only."""
        # As `asdict` would have it, at a hundredth of its time: there may be many tokens.
        completions = [
            {
                **vars(one),
                "tokens": _columns(one.tokens),
                "prompt_tokens": _columns(one.prompt_tokens),
            }
            for one in self.completions
        ]
        return {**vars(self), "completions": completions}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What `to_json` gave, read back."""
        return cls(
            completions=tuple(
                Completion(
                    text=one["text"],
                    finish=one["finish"],
                    tokens=_tokens(one["tokens"]),
                    prompt_tokens=_tokens(one["prompt_tokens"]),
                )
                for one in stored["completions"]
            ),
            input_tokens=stored["input_tokens"],
            output_tokens=stored["output_tokens"],
            requests=stored["requests"],
            lost=stored["lost"],
        )


def _columns(tokens: tuple[Token, ...]) -> list[tuple[Any, ...]]:
    """Texts, log-probabilities and alternatives, a list each: their names need not be repeated."""
    return list(zip(*tokens, strict=True))


def _tokens(columns: Sequence[Sequence[Any]]) -> tuple[Token, ...]:
    """What `_columns` gave, read back."""
    if not columns:
        return ()
    texts, logprobs, alternatives = columns
    likeliest = [tuple(map(tuple, pairs)) for pairs in alternatives]
    return tuple(map(Token, texts, logprobs, likeliest))


class Connector(Protocol):
    """Asks the models of one provider."""

    async def ask(self, question: Question) -> Answer:
        """The answer; retries what a retry can mend, within its limits.

        Cancelling the task ends the request: nothing more is sent for it.

        Raises:
            AskError: there is no answer; its kind says why (see connectors/errors.py).
        """
        ...
