"""What a request may make of the settings of a forest's ensemble."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evomerge.app.ensembles import Ensemble
from evomerge.app.errors import InvalidRequestError
from evomerge.app.routing import RoutingError, clusters_of
from evomerge.app.schemas.forests import EnsembleSettings
from evomerge.evaluation.errors import short
from evomerge.merging.forest.averages import checked_weights
from evomerge.merging.forest.errors import TopKError, WeightsError

_PARAM = "ensemble"


def changed(
    ensemble: Ensemble,
    asked: EnsembleSettings,
    names: Sequence[str],
    corpora: Sequence[str | None],
) -> Ensemble:
    """The settings with what was asked in place; what was not asked stays.

    Args:
        names: of the forest's ELMs, in order.
        corpora: content hash of what each was trained on.

    Raises:
        InvalidRequestError: the prior names no ELM of the forest or has another sum than one, or
            more ELMs were to speak than there are, or the router has not an ELM for each cluster.
    """
    given: dict[str, Any] = {name: getattr(asked, name) for name in asked.model_fields_set}
    if asked.prior is not None:
        given["prior"] = _prior(asked.prior, names)
    if asked.top_k is not None and asked.top_k > len(names):
        error = TopKError(asked.top_k, len(names))
        raise InvalidRequestError(f"{_PARAM}.{error}", param=f"{_PARAM}.top_k", code="top_k")
    fresh = replace(ensemble, **given)
    if fresh.weighting == "router":
        if asked.weighting is not None:
            check_router(fresh, corpora, f"{_PARAM}.weighting")
        if fresh.top_k is not None and fresh.top_k_kind == "static":
            param = f"{_PARAM}.top_k_kind"
            raise InvalidRequestError(
                f"{param}='static': a router chooses at each token", param=param
            )
    return fresh


def check_router(ensemble: Ensemble, corpora: Sequence[str | None], param: str) -> None:
    """Refuse a router that is not there, or that has not an ELM for each cluster.

    Raises:
        InvalidRequestError: says which.
    """
    try:
        clusters_of(ensemble, corpora)
    except RoutingError as error:
        raise InvalidRequestError(f"{param}: {error}", param=param, code=error.code) from error


def _prior(prior: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    """The prior in the order of the ELMs, its sum one but for rounding.

    Raises:
        InvalidRequestError: see `changed`.
    """
    unknown = [name for name in prior if name not in names]
    if unknown:
        param = f"{_PARAM}.prior.{unknown[0]}"
        raise InvalidRequestError(
            f"{param}: the forest has no ELM {unknown[0]!r}; it has {_listed(names)}",
            param=param,
            code="not_found",
        )
    try:
        checked_weights(list(prior.values()), None, f"{_PARAM}.prior")
    except WeightsError as error:
        raise InvalidRequestError(
            f"{error.field}={short(dict(prior))}: {error.reason}", param=error.field
        ) from error
    total = math.fsum(prior.values())
    return {name: prior[name] / total for name in names if name in prior}


def _listed(names: Sequence[str], most: int = 10) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") or "none"
