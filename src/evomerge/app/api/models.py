"""/v1/models."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Path, Request

from evomerge.app.api.responses import CONFLICT, NOT_FOUND
from evomerge.app.schemas.base import Text
from evomerge.app.schemas.models import Model, ModelList
from evomerge.app.serving.protocol import Card
from evomerge.app.serving.registry import Models

router = APIRouter(prefix="/v1/models", tags=["models"])


async def _models(request: Request) -> Models:
    return cast(Models, request.app.state.models)


ModelsDep = Annotated[Models, Depends(_models)]


@router.get("", operation_id="list_models")
async def list_models(models: ModelsDep) -> ModelList:
    """Finished merges by name, or by their job's id; forests, and experts if served."""
    return ModelList(data=[_model(card) for card in await models.cards()])


@router.get("/{model}", operation_id="get_model", responses=NOT_FOUND | CONFLICT)
async def get_model(
    models: ModelsDep,
    model: Annotated[Text, Path(max_length=128, description="As `model` in a request.")],
) -> Model:
    """One model."""
    return _model(await models.card(model))


def _model(card: Card) -> Model:
    return Model(id=card.name, created=int(card.created), evomerge=dict(card.about))
