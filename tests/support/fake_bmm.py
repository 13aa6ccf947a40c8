"""A BMM server over the tiny Llama: sessions, losses, and the quirks of the published one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from tests.support.tiny_model import Factors, TinyModel, added, delta

Json = dict[str, Any]

PRESETS = {"items": [{"preset_id": "films", "path": "p", "base_model_name_or_path": "tiny"}]}


@dataclass
class FakeBmm:
    """The server's state, open to tests.

    Attributes:
        adapters: of its one preset, films.
        texts: its datasets.
        sessions: by id; emptied, the server has been started again.
        fault: given each candidate's body, may answer in the server's place.
        asked: every candidate's body.
    """

    model: TinyModel
    adapters: Sequence[Factors]
    texts: Mapping[str, str]
    sessions: dict[str, Json] = field(default_factory=dict)
    fault: Callable[[Json], Response | None] = lambda body: None
    asked: list[Json] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.get("/v1/presets")(self.presets)
        app.post("/v1/sessions")(self.create)
        app.post("/v1/sessions/{session_id}/evaluate")(self.evaluate)
        app.post("/v1/sessions/{session_id}/materialize")(self.materialize)
        return app

    async def presets(self) -> Json:
        return PRESETS

    async def create(self, request: Request) -> Response:
        body = await request.json()
        if body["preset_id"] != "films":
            return JSONResponse({"detail": "Internal Server Error"}, 500)
        session = {
            "session_id": f"{len(self.sessions):08x}",
            "preset_id": "films",
            "workdir": "/srv/bmm",
            "model_name_or_path": "tiny",
            "query_plus": body.get("query_plus") or {"dataset": "own"},
            "adapter_count": len(self.adapters),
        }
        self.sessions[session["session_id"]] = session
        return JSONResponse(session)

    async def evaluate(self, session_id: str, request: Request) -> Response:
        body = await request.json()
        fault = self.fault(body)
        if fault is not None:
            return fault
        session = self.sessions.get(session_id)
        if session is None:
            return JSONResponse({"detail": "session not found"}, 404)
        self.asked.append(body)
        update = added(
            [delta(one, beta) for one, beta in zip(self.adapters, body["beta"], strict=True)]
        )
        ids = self.model.ids(self.texts[session["query_plus"]["dataset"]])
        numbers = self.model.prompt_logprobs(ids, update)[1:]
        loss = -sum(one for one in numbers if one is not None) / len(numbers)
        return JSONResponse({"loss": loss, "adapter_dir": "/srv/bmm/manual"})

    async def materialize(self, session_id: str, request: Request) -> Response:
        body = await request.json()
        fault = self.fault(body)
        if fault is not None:
            return fault
        return JSONResponse({"adapter_dir": "/srv/bmm/best", "session": self.sessions[session_id]})
