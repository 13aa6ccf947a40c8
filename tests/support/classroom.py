"""Models behind a real HTTP server that each know a part of a multiple-choice test.

They speak OpenAI's chat format with log-probabilities. The right option of question number n is
number n % 4; `north` knows the even questions, `south` the odd ones, `liar` is sure of a wrong
option, and `noise` knows nothing.
"""

from __future__ import annotations

import json
import math
import re
from hashlib import sha256
from typing import Any

from tests.support.provider import Action, Request, Send

MODELS = ("north", "south", "liar", "noise")
LABELS = "ABCD"
CHOICES = ("red", "green", "blue", "grey")


def rows(count: int) -> bytes:
    """A choice dataset as JSONL."""
    lines = [
        json.dumps(
            {"prompt": f"q{n}: which colour?", "choices": list(CHOICES), "answer": CHOICES[n % 4]}
        )
        for n in range(count)
    ]
    return "\n".join(lines).encode()


def expert(model: str, base_url: str, **more: Any) -> dict[str, Any]:
    """The body that registers one of them."""
    fields: dict[str, Any] = {"kind": "api", "name": model, "base_url": base_url, "model": model}
    return fields | more


def answer(request: Request) -> Action:
    """What the server says."""
    body = request.body
    if not request.path.endswith("/chat/completions"):
        return Send({"error": {"message": "no such route", "type": "invalid_request_error"}}, 404)
    text = body["messages"][-1]["content"]
    asked = re.search(r"q(\d+):", text)
    p = probabilities(body["model"], int(asked.group(1))) if asked else [0.7, 0.1, 0.1, 0.1]
    ranked = sorted(zip(p, LABELS, strict=True), reverse=True)
    shown = [_token(label, chance) for chance, label in ranked]
    logprobs = {"content": [shown[0] | {"top_logprobs": shown[: body.get("top_logprobs", 0)]}]}
    message = {"role": "assistant", "content": ranked[0][1]}
    choice = {"message": message, "finish_reason": "length"}
    if body.get("logprobs"):
        choice["logprobs"] = logprobs
    count = body.get("n", 1)
    usage = {"prompt_tokens": 5 + len(text) // 4, "completion_tokens": count}
    choices = [choice | {"index": number} for number in range(count)]
    return Send({"choices": choices, "usage": usage})


def probabilities(model: str, number: int) -> list[float]:
    """What a model thinks of the four options."""
    right = number % 4
    known = {"north": number % 2 == 0, "south": number % 2 == 1, "liar": True, "noise": False}[
        model
    ]
    drawn = sha256(f"{model} {number}".encode()).digest()
    favourite = right if model in ("north", "south") else (right + 1) % 4
    weights = [1 + drawn[option] / 255 for option in range(4)]
    if known:
        weights[favourite] += 12
    return [weight / sum(weights) for weight in weights]


def _token(label: str, chance: float) -> dict[str, Any]:
    return {"token": label, "logprob": math.log(chance), "bytes": [ord(label)], "top_logprobs": []}
