"""Tiny forests on disk and in memory, and their mixtures computed plainly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.support.tiny import make_base

from evomerge.app.db.models import Forest, ForestElm
from evomerge.app.ensembles import Ensemble
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.forest.elms import Elm
from evomerge.connectors.local.headers import content_hash

NAMES = ("ada", "bob", "cyd")


def make_forest(
    folder: Path, names: Sequence[str] = NAMES, *, seed: int = 5, chat_template: str | None = None
) -> dict[str, Path]:
    """Folders of random ELMs of one tokenizer, by name."""
    return {
        name: make_base(folder / name, seed=n + seed, chat_template=chat_template)
        for n, name in enumerate(names)
    }


def as_elms(folders: dict[str, Path]) -> list[Elm]:
    return [Elm(name, folder) for name, folder in folders.items()]


def forest_rows(
    folders: dict[str, Path], name: str = "grove", **ensemble: Any
) -> tuple[Forest, list[ForestElm]]:
    """The rows of a forest of these ELMs."""
    forest = Forest(
        id=f"forest_{name}",
        name=name,
        seed_path="",
        seed_hash="0" * 64,
        seed_lineage={},
        vocabulary_hash="0" * 64,
        architecture={},
        ensemble=Ensemble(**ensemble).stored(),
        meta={},
        created_at=0.0,
    )
    elms = [
        ForestElm(
            id=f"elm_{elm}",
            forest_id=forest.id,
            position=position,
            name=elm,
            domain=elm,
            path=str(folder),
            content_hash=content_hash(folder),
            lineage={},
            tokens=0,
            own_tokens=0,
            created_at=0.0,
        )
        for position, (elm, folder) in enumerate(folders.items())
    ]
    return forest, elms


def probabilities(base: BaseModel, tokens: Sequence[int]) -> np.ndarray:
    """Of what follows each token (len(tokens), vocabulary), by one plain forward."""
    with torch.inference_mode():
        logits = base.model(torch.tensor([list(tokens)])).logits[0].double()
    return np.asarray(logits.softmax(1).numpy())


def mixed(
    elms: Sequence[BaseModel],
    prior: np.ndarray,
    tokens: Sequence[int],
    *,
    history: str = "full",
    top_k: int | None = None,
    fixed: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Token by token, in plain probabilities, every ELM reading everything at once.

    Returns:
        (len(tokens), vocabulary), of what follows each token; and the posterior (n,) after all.
    """
    given = np.stack([probabilities(base, tokens) for base in elms])
    weights, rows = prior.copy(), []
    for place in range(len(tokens)):
        if place and not fixed:
            before = weights if history == "full" else prior
            weights = before * given[:, place - 1, tokens[place]]
            weights = weights / weights.sum()
        kept = np.argsort(-weights, kind="stable")[: top_k or len(elms)]
        rows.append(weights[kept] @ given[kept, place] / weights[kept].sum())
    return np.array(rows), weights
