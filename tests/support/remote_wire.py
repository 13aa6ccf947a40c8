"""The connectors of providers that merge, each with what its server says on the wire.

The servers are bare: every text has the same log-probability, so that what is tested is the way
there and back. What they compute is tested over a real model (tests/support/remote.py).
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.support.connectors import endpoint
from tests.support.dialects import refusal
from tests.support.provider import Action, Answer, Request, Send

from evomerge.connectors.base import Evaluator
from evomerge.connectors.bmm import BmmEvaluator, their_dataset
from evomerge.connectors.client import Caller
from evomerge.connectors.llama_cpp import LlamaCppMerger
from evomerge.connectors.lorax import LoraxMerger, Texts
from evomerge.connectors.question import Provider, Sampling
from evomerge.connectors.remote import RemoteEvaluator
from evomerge.connectors.remote_answers import LlamaCppWriter, LoraxWriter, RemoteWriter
from evomerge.connectors.server import Server
from evomerge.connectors.shelf import Shelf
from evomerge.connectors.vllm import VllmMerger
from evomerge.evaluation.example import Example
from evomerge.optimizers.candidate import Candidate

LOGPROB = -0.5
LOSS = -LOGPROB
TEXT = "half an ans"
ROW = Example("Berlin is in", "G")
SIGNED = Candidate(np.ones((1, 2)), np.array([[-0.7, 1.2]]))
Json = dict[str, Any]
Work = Callable[[], Awaitable[Any]]


@dataclass
class Faulty:
    """A server of which one route faults on demand.

    Attributes:
        answer: when all is well.
        route: how the path of the faulty requests ends.
        faults: done first there, one a request.
        hits: requests that came in there.
        hit: set at the first.
    """

    answer: Answer
    route: str
    faults: deque[Action] = field(default_factory=deque)
    hits: list[Request] = field(default_factory=list)
    hit: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, request: Request) -> Action:
        if not request.path.endswith(self.route):
            return self.answer(request)
        self.hits.append(request)
        self.hit.set()
        return self.faults.popleft() if self.faults else self.answer(request)


@dataclass(frozen=True)
class Subject:
    """One connector and its provider.

    Attributes:
        answer: the server when all is well.
        route: what scores, or writes.
        work: over a caller, the server's root and a folder to write to: scores a candidate, or
            writes a text.
        value: what that gives.
        empty: a 200 that holds no answer.
        refusal: status and message in the provider's envelope.
        null, floor: answers without a number, and with the number for next to impossible.
        tries: how often a request is sent that nothing mends.
    """

    provider: Provider
    answer: Answer
    route: str
    work: Callable[[Caller, str, Path], Work]
    value: Any
    empty: Any
    refusal: Callable[[int, str], Send] = refusal
    null: Any = None
    floor: Any = None
    tries: Mapping[int, int] = field(default_factory=dict)


def scoring(scorer: Evaluator, example: Example) -> Work:
    async def work() -> float:
        scores = await scorer.score([SIGNED], [example])
        return float(scores.losses[0, 0])

    return work


def writing(writer: RemoteWriter) -> Work:
    async def work() -> tuple[str, str]:
        written = await writer.write("Berlin is in", Sampling(4))
        return written.text, written.finish

    return work


def _server(provider: Provider, caller: Caller, url: str) -> Server:
    return Server(caller, endpoint(provider, url))


# vLLM


@dataclass(frozen=True)
class _Row:
    tokens: tuple[int, ...]
    start: int


class _Bytes:
    """Encodes a text as its bytes."""

    def scored(self, example: Example, answer: str | None = None) -> _Row:
        text = f"{example.prompt} {example.completion}".encode()
        return _Row(tuple(text), len(example.prompt))


def vllm_choice(tokens: int, number: float | None = LOGPROB) -> Json:
    """An echoed prompt and the token generated behind it."""
    return {"index": 0, "logprobs": {"token_logprobs": [None, *[number] * tokens]}}


_PROMPT = len(_Bytes().scored(ROW).tokens)


def vllm(request: Request) -> Action:
    if not request.path.endswith("/v1/completions"):
        return Send("Success: LoRA adapter 'x' added successfully.")
    if not request.body.get("return_tokens_as_token_ids"):
        return Send({"choices": [vllm_choice(len(one)) for one in request.body["prompt"]]})
    said = {"tokens": ["token_id:7"] * 4, "token_logprobs": [LOGPROB] * 4}
    return Send({"choices": [{"index": 0, "logprobs": said}]})


def _vllm(caller: Caller, url: str, folder: Path) -> Work:
    numbers = itertools.count()
    shelf = Shelf(
        folder,
        lambda candidate: f"candidate-{next(numbers)}",
        lambda candidate, path: path.mkdir(parents=True),
    )
    return scoring(
        RemoteEvaluator(VllmMerger([_server("vllm", caller, url)], _Bytes(), shelf)), ROW
    )


# LoRAX


def lorax_prefill(tokens: Sequence[int], number: float | None = LOGPROB) -> Json:
    first, *others = [{"id": one, "text": "?", "logprob": number} for one in tokens]
    details = {
        "finish_reason": "length",
        "prompt_tokens": len(tokens),
        "generated_tokens": 1,
        "prefill": [{**first, "logprob": None}, *others],
    }
    return {"generated_text": TEXT, "details": details}


def lorax(request: Request) -> Action:
    return Send(lorax_prefill(request.body["inputs"].encode()))


def lorax_refusal(status: int, message: str) -> Send:
    return Send({"error": message, "error_type": "generation"}, status)


def _lorax(caller: Caller, url: str, folder: Path) -> Work:
    return scoring(RemoteEvaluator(LoraxMerger(_server("lorax", caller, url), Texts(), "ab")), ROW)


def _lorax_writer(caller: Caller, url: str, folder: Path) -> Work:
    return writing(LoraxWriter(_server("lorax", caller, url), "ab", SIGNED))


# llama.cpp


def llama_cpp_answer(number: float | None = LOGPROB) -> Json:
    token = {"id": ord("G"), "token": "G", "logprob": number}
    return {
        "content": TEXT,
        "stop_type": "limit",
        "tokens_evaluated": 9,
        "tokens_predicted": 4,
        "completion_probabilities": [{**token, "top_logprobs": [token]}],
    }


def llama_cpp(request: Request) -> Action:
    if request.path.endswith("/lora-adapters"):
        return Send([{"id": 0, "path": "a.gguf", "scale": 1.0}, {"id": 1, "path": "b", "scale": 0}])
    if request.path.endswith("/tokenize"):
        return Send({"tokens": list(request.body["content"].encode())})
    return Send(llama_cpp_answer())


def llama_cpp_refusal(status: int, message: str) -> Send:
    error = {"code": status, "message": message, "type": "server_error"}
    return Send({"error": error}, status)


def _llama_cpp(caller: Caller, url: str, folder: Path) -> Work:
    merger = LlamaCppMerger(_server("llama_cpp", caller, url), Texts(answer_prefix=""), [0, 1])
    return scoring(RemoteEvaluator(merger), ROW)


def _llama_cpp_writer(caller: Caller, url: str, folder: Path) -> Work:
    return writing(LlamaCppWriter(_server("llama_cpp", caller, url), [0, 1], SIGNED))


# BMM


def bmm(request: Request) -> Action:
    if request.path.endswith("/v1/presets"):
        preset = {"preset_id": "films", "path": "p", "base_model_name_or_path": "tiny"}
        return Send({"items": [preset]})
    if request.path.endswith("/v1/sessions"):
        return Send({"session_id": "0000abcd", "preset_id": "films", "adapter_count": 2})
    return Send({"loss": LOSS, "adapter_dir": "/srv/bmm/manual"})


def bmm_refusal(status: int, message: str) -> Send:
    return Send({"detail": message}, status)


def _bmm(caller: Caller, url: str, folder: Path) -> Work:
    return scoring(BmmEvaluator(_server("bmm", caller, url), "films", 2), their_dataset(""))


SUBJECTS: Mapping[str, Subject] = {
    "vllm": Subject(
        "vllm",
        vllm,
        "/v1/completions",
        _vllm,
        LOSS,
        {"choices": []},
        null={"choices": [vllm_choice(_PROMPT, None)]},
        floor={"choices": [vllm_choice(_PROMPT, -9999.0)]},
    ),
    "lorax": Subject(
        "lorax",
        lorax,
        "/generate",
        _lorax,
        LOSS,
        {"generated_text": "", "details": {"prefill": []}},
        lorax_refusal,
        null=lorax_prefill(b"Berlin is in G", None),
        floor=lorax_prefill(b"Berlin is in G", -9999.0),
    ),
    "llama_cpp": Subject(
        "llama_cpp",
        llama_cpp,
        "/completion",
        _llama_cpp,
        LOSS,
        {"content": "", "completion_probabilities": []},
        llama_cpp_refusal,
        floor=llama_cpp_answer(-9999.0),
    ),
    "bmm": Subject(
        "bmm",
        bmm,
        "/evaluate",
        _bmm,
        LOSS,
        {},
        bmm_refusal,
        null={"loss": None},
        floor={"loss": 9999.0},
        # A server that was started again has forgotten the session: it is opened once more.
        tries={404: 2},
    ),
    "lorax writer": Subject(
        "lorax", lorax, "/generate", _lorax_writer, (TEXT, "length"), {}, lorax_refusal
    ),
    "llama_cpp writer": Subject(
        "llama_cpp",
        llama_cpp,
        "/completion",
        _llama_cpp_writer,
        (TEXT, "length"),
        {},
        llama_cpp_refusal,
    ),
}
