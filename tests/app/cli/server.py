"""A server that answers from a table, behind an injected transport."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

Answer = httpx.Response | list[httpx.Response] | httpx.TransportError


def page(*data: Mapping[str, Any], more: bool = False) -> httpx.Response:
    return httpx.Response(200, json={"object": "list", "data": list(data), "has_more": more})


def refusal(status: int, message: str, param: str | None = None) -> httpx.Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": None}
    return httpx.Response(status, json={"error": error})


def job(status: str = "running", **fields: Any) -> dict[str, Any]:
    progress = {
        "stage": "scaling",
        "generation": 3,
        "evaluations": 40,
        "planned_evaluations": 400,
        "best_loss": 1.25,
        "eta_seconds": 3725.0,
    }
    common = {"id": "mj_1", "name": "film", "created_at": 1_700_000_000, "error": None}
    return {**common, "status": status, "progress": progress, **fields}


def interval(low: float, high: float) -> dict[str, float]:
    return {"low": low, "high": high, "level": 0.95}


USAGE = {"evaluations": 400, "tokens": 9000, "seconds": 90.0}
RESULT: dict[str, Any] = {
    "winner": {
        "stage": "denoising",
        "generation": 7,
        "index": 2,
        "search_loss": 1.701,
        "alpha": {"relations": [0.8], "sentiment": [1.0]},
        "beta": {"relations": [0.6], "sentiment": [-0.2]},
    },
    "held_out": [
        {
            "metric": "cross_entropy",
            "examples": 40,
            "contenders": [
                {
                    "name": "winner",
                    "loss": 1.784,
                    "score": None,
                    "interval": interval(1.7, 1.9),
                    "dataset_losses": {"film": 1.784},
                },
                {
                    "name": "best_expert",
                    "expert": "relations",
                    "loss": 3.226,
                    "score": None,
                    "interval": None,
                    "dataset_losses": {"film": 3.226},
                    "difference": 1.442,
                    "difference_interval": interval(1.2, 1.6),
                    "p_value": 0.0002,
                },
            ],
        },
        {
            "metric": "item_f1",
            "examples": 40,
            "contenders": [
                {
                    "name": "winner",
                    "loss": 0.25,
                    "score": 0.75,
                    "interval": interval(0.2, 0.4),
                    "dataset_losses": {"film": 0.25, "music": None},
                }
            ],
        },
    ],
    "generations": [],
    "search_examples": 40,
    "held_out_examples": 40,
    "ended_by": "evaluations",
    "usage": {"search": USAGE, "held_out": USAGE},
    "seconds": 95.2,
    "seed": 7,
    "versions": {},
    "hashes": {},
    "artifacts": [],
}


@dataclass
class Server:
    """Answers by "METHOD /path"; a list is answered one by one, its last for ever."""

    answers: Mapping[str, Answer]
    seen: list[httpx.Request] = field(default_factory=list)

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.seen if request.content]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        answer = self.answers.get(f"{request.method} {request.url.path}")
        if isinstance(answer, httpx.TransportError):
            raise answer
        if isinstance(answer, list):
            return answer.pop(0) if len(answer) > 1 else answer[0]
        return answer or refusal(404, f"{request.url.path} is unknown")
