"""Presets out of the settings: merge jobs that others may search in the place of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from evomerge.app.errors import InvalidRequestError
from evomerge.app.schemas.faults import faults
from evomerge.app.schemas.sessions import QueryPlus
from evomerge.app.schemas.spec import MergeJobSpec

# Fewer examples than these would tell of each by itself.
FEWEST_SAMPLES = 16


class PresetError(ValueError):
    """A preset of the settings that cannot be shared; says which and why."""


def read_presets(shared: Mapping[str, Mapping[str, Any]]) -> dict[str, MergeJobSpec]:
    """The specs of the settings' presets.

    Raises:
        PresetError: one is no merge job, or not of one whole adapter each.
    """
    return {name: _spec(name, dict(body)) for name, body in shared.items()}


def queried(spec: MergeJobSpec, query: QueryPlus) -> MergeJobSpec:
    """A preset's spec with what a query changes.

    Raises:
        InvalidRequestError: the preset has no such dataset; names the field.
    """
    objective = spec.objective
    datasets = objective.datasets
    if query.dataset is not None:
        known = {one.dataset: one for one in datasets}
        names = list(dict.fromkeys(part.strip() for part in query.dataset.split(",")))
        for name in names:
            if name not in known:
                raise InvalidRequestError(
                    f"query_plus.dataset: {name!r} is none of {', '.join(map(repr, known))}",
                    param="query_plus.dataset",
                )
        datasets = [known[name] for name in names]
    most = objective.search_examples
    if query.max_samples is not None:
        asked = max(FEWEST_SAMPLES, query.max_samples)
        most = asked if most is None else min(most, asked)
    changed = objective.model_copy(update={"datasets": datasets, "search_examples": most})
    return spec.model_copy(update={"objective": changed})


def _spec(name: str, body: dict[str, Any]) -> MergeJobSpec:
    try:
        spec = MergeJobSpec.model_validate(body)
    except ValidationError as error:
        words = "; ".join(detail.message for detail in faults(error.errors(), body))
        raise PresetError(f"shared.{name}: {words}") from error
    if spec.space != "lora" or spec.layer_groups != 1:
        raise PresetError(f"shared.{name}: a session weighs whole adapters in space lora")
    return spec
