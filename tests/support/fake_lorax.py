"""A LoRAX server over the tiny Llama: merged_adapters, local folders, its shapes and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from tests.support.tiny_model import Delta, Factors, TinyModel, delta, linear, read_factors

Json = dict[str, Any]


def refused(status: int, message: str, kind: str) -> JSONResponse:
    return JSONResponse({"error": message, "error_type": kind}, status)


@dataclass
class FakeLorax:
    """The server's state, open to tests.

    Attributes:
        adapters: that it knows, by id.
        first: what it says of the first token's number: null, or NaN as its JSON once had it.
        fault: given each body, may answer in the server's place.
        asked: the parameters of every request.
    """

    model: TinyModel
    adapters: Mapping[str, Factors] = field(default_factory=dict)
    first: float | None = None
    fault: Callable[[Json], Response | None] = lambda body: None
    asked: list[Json] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.post("/generate")(self.generate)
        return app

    async def generate(self, request: Request) -> Response:
        body = await request.json()
        fault = self.fault(body)
        if fault is not None:
            return fault
        parameters = body["parameters"]
        self.asked.append(parameters)
        if parameters.get("max_new_tokens", 20) < 1:
            message = "Input validation error: `max_new_tokens` must be strictly positive"
            return refused(422, message, "validation")
        update = self._update(parameters)
        if isinstance(update, Response):
            return update
        ids = self.model.ids(body["inputs"])
        own = self.model.prompt_logprobs(ids, update)
        own[0] = self.first
        ((token, number),) = self.model.greedy(ids, update, 1)
        details = {
            "finish_reason": "length",
            "prompt_tokens": len(ids),
            "generated_tokens": 1,
            "skipped_tokens": 0,
            "seed": None,
            "prefill": [self._token(*pair) for pair in zip(ids, own, strict=True)]
            if parameters.get("decoder_input_details")
            else [],
            "tokens": [{**self._token(token, number), "special": False, "skipped": False}],
        }
        answer = {"generated_text": self.model.text(token), "details": details}
        # Python's writer spells NaN as NaN, which is not JSON, and which its reader takes.
        return Response(json.dumps(answer), media_type="application/json")

    def _update(self, parameters: Json) -> Delta | Response:
        chosen, one = parameters.get("merged_adapters"), parameters.get("adapter_id")
        if chosen and one:
            message = "Input validation error: `adapter_id` and `merged_adapters` are exclusive"
            return refused(422, message, "validation")
        if one:
            if parameters.get("adapter_source") == "local" and Path(one).is_dir():
                return delta(read_factors(Path(one)))
            if one not in self.adapters:
                return refused(424, f"Request failed during generation: {one}", "generation")
            return delta(self.adapters[one])
        if not chosen:
            return {}
        if len(chosen["ids"]) != len(chosen["weights"]):
            message = "Input validation error: ids and weights must have the same length"
            return refused(422, message, "validation")
        unknown = [name for name in chosen["ids"] if name not in self.adapters]
        if unknown:
            return refused(424, f"Request failed: no adapter {unknown[0]}", "generation")
        members = [self.adapters[name] for name in chosen["ids"]]
        if len(members) == 1:
            return delta(members[0])  # its weight is ignored
        return linear(list(zip(chosen["weights"], members, strict=True)))

    def _token(self, token: int, number: float | None) -> Json:
        return {"id": token, "text": self.model.text(token), "logprob": number}
