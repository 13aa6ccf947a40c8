"""Answers of a finished merge that its provider merges: the weights travel with every request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from evomerge.connectors.errors import UnknownModelError
from evomerge.connectors.llama_cpp import all_scales, read_adapters
from evomerge.connectors.lorax import merged
from evomerge.connectors.question import Finish, Sampling
from evomerge.connectors.server import Server, Tally
from evomerge.connectors.shapes import count, cut, mapping, word
from evomerge.optimizers.candidate import Candidate

_LORAX_FINISH: Mapping[str, Finish] = {
    "length": "length",
    "eos_token": "stop",
    "stop_sequence": "stop",
}


@dataclass(frozen=True)
class Written:
    """What the merge wrote behind a prompt.

    Attributes:
        text: without any stop.
        finish: why it ended.
        input_tokens, output_tokens: as the server counts them; 0 where it does not.
    """

    text: str
    finish: Finish
    input_tokens: int
    output_tokens: int


class RemoteWriter(Protocol):
    """Continues texts by one merge."""

    async def write(self, prompt: str, sampling: Sampling) -> Written:
        """What the merge writes behind a prompt.

        Raises:
            AskError: there is no answer.
        """
        ...


@dataclass(frozen=True)
class LlamaCppWriter:
    """llama.cpp's `/completion` with a scale for every adapter of the server.

    Attributes:
        ids: of the pool's adapters there.
        candidate: (1, N), every alpha one.
    """

    server: Server
    ids: Sequence[int]
    candidate: Candidate

    async def write(self, prompt: str, sampling: Sampling) -> Written:
        """See `RemoteWriter`."""
        tally = Tally()
        known = await self.server.get("/lora-adapters", read_adapters, tally)
        if not set(self.ids) <= set(known):
            raise UnknownModelError(self.server.who, "it has not all of the merge's adapters")
        body = {
            "prompt": prompt,
            "n_predict": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_k": 0,
            "min_p": 0.0,
            "top_p": 1.0 if sampling.top_p is None else sampling.top_p,
            "seed": -1 if sampling.seed is None else sampling.seed % 2**31,
            "stop": list(sampling.stop),
            # Off, for it would hold another candidate's states.
            "cache_prompt": False,
            "lora": [dict(one) for one in all_scales(known, self.ids, self.candidate)],
        }
        return await self.server.post("/completion", body, read_completion, tally)


@dataclass(frozen=True)
class LoraxWriter:
    """LoRAX's `/generate` with `merged_adapters`.

    Attributes:
        ids: of the pool's adapters there.
        candidate: (1, N), every alpha one.
    """

    server: Server
    ids: Sequence[str]
    candidate: Candidate

    async def write(self, prompt: str, sampling: Sampling) -> Written:
        """See `RemoteWriter`."""
        parameters: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens,
            "do_sample": sampling.temperature > 0,
            "stop": list(sampling.stop),
            "details": True,
            **merged(self.ids, self.candidate),
        }
        if sampling.temperature > 0:
            # It refuses a top_p of 1, which is none.
            top_p = {} if sampling.top_p in (None, 1.0) else {"top_p": sampling.top_p}
            parameters |= {"temperature": sampling.temperature, "seed": sampling.seed, **top_p}
        body = {"inputs": prompt, "parameters": parameters}

        def read(answer: Any) -> Written:
            return read_generated(answer, sampling.stop)

        return await self.server.post("/generate", body, read, Tally())


def read_completion(answer: Any) -> Written:
    """What llama.cpp's server wrote. Older builds say why it ended in a flag a reason.

    Raises:
        BadAnswerError: it is no such answer.
    """
    found = mapping(answer, "the answer")
    text = word(found.get("content"))
    limited = found.get("stop_type") == "limit" or found.get("stopped_limit") is True
    return Written(
        text,
        "length" if limited else "stop",
        count(found.get("tokens_evaluated"), 0),
        count(found.get("tokens_predicted"), 0),
    )


def read_generated(answer: Any, stop: Sequence[str]) -> Written:
    """What LoRAX wrote; it leaves a stop at the end of the text.

    Raises:
        BadAnswerError: it is no such answer.
    """
    found = mapping(answer, "the answer")
    text = word(found.get("generated_text"))
    details = mapping(found.get("details") or {}, "details")
    said = _LORAX_FINISH.get(str(details.get("finish_reason")), "other")
    text, _, finish = cut(text, (), said, stop)
    return Written(
        text,
        finish,
        count(details.get("prompt_tokens"), 0),
        count(details.get("generated_tokens"), 0),
    )
