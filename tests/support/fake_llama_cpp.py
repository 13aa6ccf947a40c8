"""A llama.cpp server over the tiny Llama: per-request adapter scales, its shapes and quirks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from tests.support.tiny_model import Delta, Factors, TinyModel, added, delta

Json = dict[str, Any]


@dataclass
class FakeLlamaCpp:
    """The server's state, open to tests.

    Attributes:
        adapters: loaded at its start, by number; all at scale 1 where a request names none.
        name: how it calls the probabilities.
        fault: given each completion's body, may answer in the server's place.
        asked: every completion's body.
    """

    model: TinyModel
    adapters: Sequence[Factors] = ()
    name: str = "completion_probabilities"
    fault: Callable[[Json], Response | None] = lambda body: None
    asked: list[Json] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.get("/lora-adapters")(self.known)
        app.post("/tokenize")(self.tokenize)
        app.post("/completion")(self.completion)
        return app

    async def known(self) -> list[Json]:
        return [
            {"id": number, "path": f"adapter-{number}.gguf", "scale": 1.0}
            for number in range(len(self.adapters))
        ]

    async def tokenize(self, request: Request) -> Json:
        body = await request.json()
        return {"tokens": self.model.ids(body["content"])}

    async def completion(self, request: Request) -> Response:
        body = await request.json()
        fault = self.fault(body)
        if fault is not None:
            return fault
        self.asked.append(body)
        table = self.model.logprobs(self.model.ids(body["prompt"]), self._update(body))[-1]
        best = table.argsort(descending=True)[: body["n_probs"]].tolist()
        top = [
            {"id": token, "token": self.model.text(token), "bytes": [], "logprob": float(number)}
            for token, number in zip(best, table[best], strict=True)
        ]
        said = {**top[0], "top_logprobs": top}
        return JSONResponse({"index": 0, "content": top[0]["token"], self.name: [said]})

    def _update(self, body: Json) -> Delta:
        # Omitted or empty: the global scales.
        listed = {one["id"]: one["scale"] for one in body.get("lora") or ()}
        scales = listed or dict.fromkeys(range(len(self.adapters)), 1.0)
        return added(
            [delta(self.adapters[number], scale) for number, scale in scales.items() if scale]
        )
