"""A vLLM server with runtime adapters over the tiny Llama: its routes, shapes and refusals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from tests.support.tiny_model import Delta, TinyModel, delta, read_factors

Json = dict[str, Any]


def refused(status: int, message: str, kind: str) -> JSONResponse:
    error = {"message": message, "type": kind, "param": None, "code": status}
    return JSONResponse({"error": error}, status)


@dataclass
class FakeVllm:
    """The server's state, open to tests.

    Attributes:
        shift: whether echoed numbers are shifted by one, as one real server does.
        fault: given each completion's body, may answer in the server's place.
        loaded, unloaded: names in the order of the requests.
        asked: rows that were scored, by model.
    """

    model: TinyModel
    base: str = "tiny"
    max_rank: int = 16
    shift: bool = False
    fault: Callable[[Json], Response | None] = lambda body: None
    adapters: dict[str, Delta] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    unloaded: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.post("/v1/load_lora_adapter")(self.load)
        app.post("/v1/unload_lora_adapter")(self.unload)
        app.post("/v1/completions")(self.completions)
        return app

    async def load(self, request: Request) -> Response:
        body = await request.json()
        name, path = body["lora_name"], Path(body["lora_path"])
        if name in self.adapters:
            message = f"The lora adapter '{name}' has already been loaded."
            return refused(400, message, "InvalidUserInput")
        if not path.is_dir():  # noqa: ASYNC240
            return refused(404, f"No adapter found for {path}", "NotFoundError")
        factors = read_factors(path)
        rank = next(iter(factors.values()))[0].shape[0]
        if rank > self.max_rank:
            message = f"LoRA rank {rank} is greater than max_lora_rank {self.max_rank}."
            return refused(400, message, "BadRequestError")
        self.adapters[name] = delta(factors)
        self.loaded.append(name)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: Request) -> Response:
        name = (await request.json())["lora_name"]
        if name not in self.adapters:
            return refused(404, f"The lora adapter '{name}' cannot be found.", "NotFoundError")
        del self.adapters[name]
        self.unloaded.append(name)
        return PlainTextResponse(f"Success: LoRA adapter '{name}' removed successfully.")

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        fault = self.fault(body)
        if fault is not None:
            return fault
        name = body["model"]
        if name != self.base and name not in self.adapters:
            return refused(404, f"The model `{name}` does not exist.", "NotFoundError")
        prompts = body["prompt"]
        rows = prompts if isinstance(prompts[0], list) else [prompts]
        self.asked += [name] * len(rows)
        update = self.adapters.get(name, {})
        choices = [self._choice(at, row, body, update) for at, row in enumerate(rows)]
        usage = {"prompt_tokens": sum(map(len, rows)), "completion_tokens": len(rows)}
        # Later prompts may be done first: only `index` tells them apart.
        whole = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": name}
        return JSONResponse({**whole, "choices": choices[::-1], "usage": usage})

    def _choice(self, at: int, row: list[int], body: Json, update: Delta) -> Json:
        said = self.model.greedy(row, update, body["max_tokens"])
        numbers: list[float | None] = [number for _, number in said]
        tokens = [token for token, _ in said]
        if body.get("echo"):
            own = self.model.prompt_logprobs(row, update)
            if self.shift:
                own = [*own[1:], own[-1]]
            numbers, tokens = own + numbers, row + tokens
        by_id = body.get("return_tokens_as_token_ids")
        texts = [f"token_id:{one}" if by_id else self.model.text(one) for one in tokens]
        logprobs = {
            "tokens": texts,
            "token_logprobs": numbers,
            "top_logprobs": [
                None if number is None else {text: number}
                for text, number in zip(texts, numbers, strict=True)
            ],
            "text_offset": [0] * len(texts),
        }
        text = "".join(map(self.model.text, tokens))
        return {"index": at, "text": text, "logprobs": logprobs, "finish_reason": "length"}
