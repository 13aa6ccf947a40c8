"""/tokenize, beside /v1 as vLLM has it."""

from __future__ import annotations

from fastapi import APIRouter

from evomerge.app.api.completions import REFUSED, OpenAIRoute
from evomerge.app.api.models import ModelsDep
from evomerge.app.errors import NotPossibleError
from evomerge.app.schemas.completions import ChatCompletionRequest, CompletionRequest
from evomerge.app.schemas.tokenize import Tokenized, TokenizeRequest
from evomerge.app.serving.local import LocalModel
from evomerge.app.serving.protocol import Request
from evomerge.app.serving.requests import chat_request, completion_request

router = APIRouter(tags=["models"], route_class=OpenAIRoute)


@router.post("/tokenize", operation_id="tokenize_text", responses=REFUSED)
async def tokenize_text(body: TokenizeRequest, models: ModelsDep) -> Tokenized:
    """The tokens that a model reads a text or a chat as, counted without an answer."""
    model = await models.get(body.model)
    if not isinstance(model, LocalModel):
        raise NotPossibleError(
            f"model {body.model!r} is read elsewhere: it has no tokenizer here", param="model"
        )
    tokens = await model.tokens(_request(body))
    return Tokenized(count=len(tokens), max_model_len=model.context_tokens, tokens=list(tokens))


def _request(body: TokenizeRequest) -> Request:
    if body.messages is not None:
        return chat_request(ChatCompletionRequest(model=body.model, messages=body.messages))
    return completion_request(CompletionRequest(model=body.model, prompt=body.prompt or ""))
