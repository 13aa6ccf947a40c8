"""The first weights of a branch: chosen among a forest's ELMs, and written down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from evomerge.connectors.local.headers import content_hash, model_files
from evomerge.connectors.local.training.branching import (
    Brancher,
    Choice,
    Elm,
    Measured,
    development_sample,
)
from evomerge.connectors.local.training.errors import OptimizerStateError
from evomerge.connectors.local.training.recipe import Recipe
from evomerge.connectors.local.training.start import (
    Start,
    StartParent,
    copy_optimizer,
    has_optimizer,
    read_optimizer,
    write_start,
)
from evomerge.connectors.local.training.tokens import TokenCache
from evomerge.evaluation.corpus import Corpus, EmptyDomainError
from evomerge.merging.checkpoint.lineage import read_lineage
from evomerge.merging.storing import copy_file

OptimizerChoice: TypeAlias = Literal["auto", "continue", "reset"]


def choose(
    brancher: Brancher,
    data: TokenCache,
    start: str,
    optimizer: OptimizerChoice,
    recipe: Recipe,
    corpus: Corpus,
) -> Choice:
    """The start that is asked for.

    Raises:
        EmptyDomainError: it is to be measured, and there is no development document.
        and as for `Brancher`.
    """
    if start == "seed":
        return brancher.seed()
    if start in get_args(Measured):
        sample = development_sample(data, recipe.block_tokens)
        if not sample:
            reason = f"has no development document to choose start={start!r} by; raise dev_share"
            raise EmptyDomainError(corpus.domain, corpus.path, reason)
        # An average has no optimizer to continue.
        wanted = "nearest" if start == "auto" and optimizer == "continue" else start
        return brancher.measured(cast(Measured, wanted), sample)
    return brancher.named(start)


def write_branch_start(
    choice: Choice, forest: Sequence[Elm], optimizer: OptimizerChoice, folder: Path
) -> None:
    """The first weights, what is known of them, and the optimizer's state if it is continued.

    Raises:
        OptimizerStateError: it is to be continued, and cannot be.
    """
    parents = [elm for elm in forest if elm.name in choice.weights]
    hashes = {elm.name: content_hash(elm.folder) for elm in parents}
    lineages = {elm.name: read_lineage(elm.folder) for elm in parents}
    one = parents[0]
    single = len(parents) == 1
    kept = single and has_optimizer(one.folder)
    if optimizer == "continue" and not kept:
        raise OptimizerStateError(f"{one.name!r} was trained without keep_optimizer")
    goes_on = optimizer != "reset" and kept
    for path in model_files(choice.folder):
        copy_file(path, folder / path.name)
    done = 0
    if goes_on:
        copy_optimizer(one.folder, folder)
        done = read_optimizer(one.folder)[1]
    tokens = sum(choice.weights[name] * lineages[name].tokens for name in lineages)
    start = Start(
        seed_hash=lineages[one.name].root(hashes[one.name]),
        parents=tuple(StartParent(name, hashes[name], choice.weights[name]) for name in lineages),
        tokens=round(tokens),
        policy="continue" if goes_on else "reset",
        schedule_done=done,
        posterior=choice.posterior,
        losses=choice.losses,
    )
    write_start(folder, start)
