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


RESULT = {
    "winner": {
        "experts": [
            {"name": "relations", "alpha": [0.8], "beta": [0.6]},
            {"name": "sentiment", "alpha": [1.0], "beta": [-0.2]},
        ]
    },
    "held_out": [
        {
            "metric": "cross_entropy",
            "contenders": [
                {
                    "name": "winner",
                    "mean": 1.784,
                    "interval": {"low": 1.7, "high": 1.9},
                    "difference": None,
                    "p_value": None,
                },
                {
                    "name": "base",
                    "mean": 3.226,
                    "interval": {"low": 3.1, "high": 3.3},
                    "difference": 1.442,
                    "p_value": 0.0002,
                },
            ],
        }
    ],
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
