"""An expert that is known by its API alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self

from evomerge.connectors.question import Endpoint, Interface, Message, Question, Sampling
from evomerge.evaluation.example import Example

PROMPT = "{prompt}"
# Whose form of tokenizing without generating a server takes.
Tokenizes = Literal["vllm", "llama_cpp"]


@dataclass(frozen=True)
class Price:
    """US dollars a million tokens."""

    input: float = 0.0
    output: float = 0.0

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """Dollars."""
        return (self.input * input_tokens + self.output * output_tokens) / 1e6


@dataclass(frozen=True)
class Capabilities:
    """What a probe found that an endpoint can do. What was not seen is not believed.

    Attributes:
        interface: how it is asked: chat, or completions.
        alternatives: log-probabilities given beside a generated token's own; None: none at all.
        prompt_logprobs: whether echoing gives the numbers that generating gave.
        zero_tokens: whether max_tokens 0 was obeyed (else 1 is asked and dropped).
        batches: whether several prompts may go in one request.
        samples: whether `n` answers may be asked in one request.
        token_limit: the parameter that limits the answer.
        unsupported: parameters that it refused, never to be sent.
        bytes_per_token: UTF-8 bytes of the prompt by counted input token.
        overhead_tokens: input tokens that it counts beyond the text (its chat template).
        tokenizes: how it is asked to count tokens without generating any; None: it is not.
        notes: what looked odd, for people.
        checked_at: when, in seconds since the epoch; 0 for an expert that was never probed.
    """

    interface: Interface = "chat"
    alternatives: int | None = None
    prompt_logprobs: bool = False
    zero_tokens: bool = False
    batches: bool = False
    samples: bool = False
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    unsupported: tuple[str, ...] = ()
    bytes_per_token: float = 4.0
    overhead_tokens: int = 0
    tokenizes: Tokenizes | None = None
    notes: tuple[str, ...] = ()
    checked_at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As stored with the expert."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What `to_json` gave, read back; unknown fields of other versions are left out."""
        known = {one.name for one in fields(cls)}
        found = {name: value for name, value in stored.items() if name in known}
        for name in ("unsupported", "notes"):
            if name in found:
                found[name] = tuple(found[name])
        return cls(**found)


@dataclass(frozen=True)
class ApiExpert:
    """A model behind an API with the prompt that makes it an expert.

    One endpoint can give many experts: the system prompt and the template are part of who it is.

    Attributes:
        name: unique in its pool.
        endpoint: where it answers.
        system: system prompt; None for none.
        template: what a question's prompt is put into; holds `{prompt}` once.
        sampling: how it answers unless the task asks otherwise.
        price: what its tokens cost.
        capabilities: what its probe found.
    """

    name: str
    endpoint: Endpoint
    system: str | None = None
    template: str = PROMPT
    sampling: Sampling = field(default_factory=Sampling)
    price: Price = field(default_factory=Price)
    capabilities: Capabilities = field(default_factory=Capabilities)

    def messages(self, example: Example, suffix: str = "") -> tuple[Message, ...]:
        """The example as a chat; `suffix` goes behind the question (a list of options, say)."""
        system = () if self.system is None else (Message("system", self.system),)
        if example.messages:
            turns = [Message(role, content) for role, content in example.messages]  # type: ignore[arg-type]
            last = turns[-1]
            turns[-1] = Message(last.role, self._filled(last.content) + suffix)
            return (*system, *turns)
        return (*system, Message("user", self._filled(example.prompt) + suffix))

    def text(self, example: Example, suffix: str = "") -> str:
        """The example as one text to continue."""
        system = "" if self.system is None else f"{self.system}\n\n"
        return f"{system}{self._filled(example.prompt)}{suffix}"

    def input_tokens(self, question: Question) -> int:
        """Input tokens of a question, estimated by what the probe counted."""
        texts = max(1, len(question.prompts))
        known = self.capabilities
        return round(question.input_bytes / known.bytes_per_token) + known.overhead_tokens * texts

    def _filled(self, prompt: str) -> str:
        # Not str.format: prompts and templates hold braces of their own.
        return self.template.replace(PROMPT, prompt, 1)
