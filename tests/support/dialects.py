"""What providers say on the wire: a tiny deterministic language model behind their real shapes."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.provider import Request, Send

WORDS = (" the", " river", " sea", " town", " a", " of", " stone", " Paris", " runs", " by")
FLOOR = -9999.0
Json = dict[str, Any]


def tokens_of(text: str) -> list[str]:
    """Words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


def distribution(before: str | None) -> dict[str, float]:
    """Log-probabilities of the next token, by the one before it, likeliest first."""
    scores = {
        word: hashlib.sha256(f"{before}|{word}".encode()).digest()[0] / 32.0 for word in WORDS
    }
    total = math.log(sum(math.exp(score) for score in scores.values()))
    ranked = sorted(scores.items(), key=lambda one: -one[1])
    return {word: score - total for word, score in ranked}


@dataclass(frozen=True)
class OpenAI:
    """An OpenAI-compatible server.

    Attributes:
        alternatives: log-probabilities that it gives at most; None: it has none.
        strict: whether asking for more is a 400 (else it gives what it has).
        echo: right; shifted by one as one real server does; ignored; or refused.
        zero: what max_tokens 0 does: obeyed, or one, or many tokens.
        batches, samples: whether they work; else the rest is left out.
        usage: whether tokens are counted.
        chat: whether there is chat.
        refused: parameters that it answers 400 to.
        chat_shaped: completions' log-probabilities in the shape of chat (llama.cpp).
        overhead: tokens of its chat template.
        tokenizes: whose form of /tokenize it has; none at all by default.
        miscounts: tokens too many that it tokenizes into, by word.
    """

    alternatives: int | None = 20
    strict: bool = True
    echo: str = "right"
    zero: str = "obeyed"
    batches: bool = True
    samples: bool = True
    usage: bool = True
    chat: bool = True
    refused: Mapping[str, str] = ()  # type: ignore[assignment]
    chat_shaped: bool = False
    overhead: int = 7
    tokenizes: str | None = None
    miscounts: int = 0

    def __call__(self, request: Request) -> Send:
        asked = request.body
        if request.path == "/tokenize":
            return self._tokenized(asked)
        for name in self.refused:
            if name in asked:
                return refusal(400, dict(self.refused)[name], param=name)
        chat = request.path.endswith("/chat/completions")
        if chat and not self.chat:
            return refusal(404, "no such route")
        count = asked.get("top_logprobs", 0) if chat else asked.get("logprobs")
        wanted = asked.get("logprobs") is not None and asked.get("logprobs") is not False
        if wanted and (self.alternatives is None or (self.strict and count > self.alternatives)):
            return refusal(400, f"logprobs must be at most {self.alternatives}", param="logprobs")
        given = min(count, self.alternatives) if wanted and self.alternatives is not None else None
        if asked.get("echo") and self.echo == "refused":
            return refusal(400, "Only no echo is supported", param="echo")
        prompts = self._prompts(asked, chat)
        n = asked.get("n", 1) if self.samples else 1
        choices = [
            self._choice(place, prompt, asked, given, chat)
            for place, prompt in enumerate(prompt for prompt in prompts for _ in range(n))
        ]
        # Servers need not keep the order; `index` does.
        body: Json = {"id": "x", "object": "x", "model": asked["model"], "choices": choices[::-1]}
        if self.usage:
            read = sum(len(tokens_of(prompt)) for prompt in prompts)
            limit = self._limit(asked)
            body["usage"] = {
                "prompt_tokens": read + (self.overhead if chat else 0),
                "completion_tokens": limit * len(choices),
            }
        return Send(body)

    def _tokenized(self, asked: Json) -> Send:
        if self.tokenizes is None:
            return refusal(404, "no such route")
        if self.tokenizes == "llama_cpp":
            words = tokens_of(asked.get("content", "")) * (1 + self.miscounts)
            return Send({"tokens": list(range(len(words)))})
        if "prompt" not in asked and "messages" not in asked:
            return refusal(400, "prompt or messages are missing")
        chat = "messages" in asked
        text = "".join(one["content"] for one in asked["messages"]) if chat else asked["prompt"]
        count = len(tokens_of(text)) * (1 + self.miscounts) + (self.overhead if chat else 0)
        return Send({"count": count, "max_model_len": 4096, "tokens": list(range(count))})

    def _prompts(self, asked: Json, chat: bool) -> list[str]:
        if chat:
            return ["".join(message["content"] for message in asked["messages"])]
        prompts = asked["prompt"] if isinstance(asked["prompt"], list) else [asked["prompt"]]
        return prompts if self.batches else prompts[:1]

    def _limit(self, asked: Json) -> int:
        limit = asked.get("max_tokens", asked.get("max_completion_tokens", 16))
        return limit or {"obeyed": 0, "one": 1, "many": 40}[self.zero]

    def _choice(self, place: int, prompt: str, asked: Json, given: int | None, chat: bool) -> Json:
        read = tokens_of(prompt)
        said: list[str] = []
        for _ in range(self._limit(asked)):
            before = said[-1] if said else (read[-1] if read else None)
            said.append(next(iter(distribution(before))))
        text, finish = "".join(said), "length"
        for stop in asked.get("stop", ()):
            if stop in text:
                text, finish = text[: text.index(stop)], "stop"
        echo = asked.get("echo") and self.echo != "ignored"
        shown = [*read, *said] if echo else said
        start = 0 if echo else len(read)
        logprobs = None
        if given is not None:
            logprobs = self._logprobs([*read, *said], start, given, chat or self.chat_shaped)
        choice: Json = {"index": place, "finish_reason": finish, "logprobs": logprobs}
        if chat:
            return choice | {"message": {"role": "assistant", "content": text}}
        assert len(shown) + start == len(read) + len(said)
        return choice | {"text": prompt + text if echo else text}

    def _logprobs(self, tokens: Sequence[str], start: int, given: int, chat: bool) -> Json:
        rows = []
        for place in range(start, len(tokens)):
            shift = 1 if self.echo == "shifted" and start == 0 else 0
            before = tokens[place - 1 + shift] if place - 1 + shift >= 0 else None
            known = distribution(before)
            top = dict(list(known.items())[:given])
            own = None if place == 0 else known.get(tokens[place], FLOOR)
            rows.append((tokens[place], own, None if place == 0 else top))
        if chat:
            return {
                "content": [
                    {
                        "token": token,
                        "logprob": own,
                        "bytes": None,
                        "top_logprobs": [
                            {"token": word, "logprob": value, "bytes": None}
                            for word, value in (top or {}).items()
                        ],
                    }
                    for token, own, top in rows
                ]
            }
        offsets = [len("".join(tokens[:place])) for place in range(start, len(tokens))]
        return {
            "tokens": [token for token, _, _ in rows],
            "token_logprobs": [own for _, own, _ in rows],
            "top_logprobs": [top for _, _, top in rows],
            "text_offset": offsets,
        }


def refusal(status: int, message: str, param: str | None = None, **headers: str) -> Send:
    """OpenAI's envelope."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return Send(
        {"error": error}, status, {name.replace("_", "-"): v for name, v in headers.items()}
    )


def anthropic(request: Request) -> Send:
    """Anthropic's Messages API."""
    asked = request.body
    if request.headers.get("anthropic-version") != "2023-06-01":
        return anthropic_refusal(400, "anthropic-version: header is required")
    roles = [message["role"] for message in asked["messages"]]
    if any(one == other for one, other in itertools.pairwise(roles)):
        return anthropic_refusal(400, "messages: roles must alternate")
    read = tokens_of("".join(message["content"] for message in asked["messages"]))
    said: list[str] = []
    for _ in range(asked["max_tokens"]):
        said.append(next(iter(distribution(said[-1] if said else read[-1]))))
    return Send(message("".join(said), "max_tokens", len(read) + 7, len(said)))


def message(text: str, stop_reason: str, read: int = 9, written: int = 4) -> Json:
    """One of Anthropic's answers."""
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": text}] if text else [],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": read, "output_tokens": written},
    }


def anthropic_refusal(status: int, message: str, kind: str = "invalid_request_error") -> Send:
    """Anthropic's envelope."""
    return Send({"type": "error", "error": {"type": kind, "message": message}}, status)
