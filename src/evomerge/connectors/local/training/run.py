"""Training runs, whole: a seed on several domains, a branch on one.

Both are called with a scratch folder of their own. Called again after a kill, with the same
arguments, they go on from its latest checkpoint and give the same ELM, to the bit (on a CPU, with
the same number of threads). The scratch folder is the caller's to delete.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal, TypeAlias

from evomerge.connectors.local.training.architecture import (
    Architecture,
    first_weights,
    write_tokenizer,
)
from evomerge.connectors.local.training.branch_start import (
    OptimizerChoice,
    choose,
    write_branch_start,
)
from evomerge.connectors.local.training.branching import Brancher, Elm
from evomerge.connectors.local.training.errors import (
    OptimizerStateError,
    RecipeError,
    StoppedTrainingError,
)
from evomerge.connectors.local.training.progress import Progress, Watch, ticking, unwatched
from evomerge.connectors.local.training.recipe import Recipe
from evomerge.connectors.local.training.running import Run, Trained
from evomerge.connectors.local.training.saving import save_model
from evomerge.connectors.local.training.scratch import Scratch
from evomerge.connectors.local.training.start import Start, check_context, write_start
from evomerge.evaluation.corpus import Corpus
from evomerge.merging.storing import written_whole

__all__ = [
    "Architecture",
    "Corpus",
    "Elm",
    "Progress",
    "Recipe",
    "StoppedTrainingError",
    "Trained",
    "Watch",
    "branch_train",
    "train_seed",
    "unwatched",
]

StartKind: TypeAlias = Literal["auto", "nearest", "average", "seed"]


def train_seed(
    corpora: Sequence[Corpus],
    architecture: Architecture,
    recipe: Recipe,
    *,
    scratch: Path,
    out: Path,
    watch: Watch = unwatched,
    threads: int | None = None,
    cache: Path | None = None,
    last_step: int | None = None,
    processes: int | None = None,
    device: str = "auto",
) -> Trained:
    """Train a seed from random weights, on equal tokens of each domain.

    Args:
        corpora: its domains; their order says nothing.
        architecture: of the model, and its tokenizer.
        recipe: of the training.
        scratch: the run's own folder.
        out: the seed's folder; replaced if it is there.
        watch: see `Watch`.
        threads: CPU threads of each process; torch's own choice by default.
        cache: folder of token caches, to share them between runs; in `scratch` by default.
        last_step: end after so many steps, if that is before the recipe's end, with the ELM as it
            is then; the learning rates stay the recipe's. A run that was stopped is ended so.
        processes: that share each batch; one a CUDA device by default, and one on a CPU.
        device: see `place`.

    Raises:
        CorpusError: domains are missing or there twice, or documents cannot be read.
        TooFewTokensError: a domain does not fill a block.
        RecipeError: the blocks are longer than the architecture's context.
        BaseFolderError: the tokenizer cannot be loaded.
        ChangedRunError: `scratch` holds a run of other arguments.
        PlacementError: there are no such devices, or not enough for the processes.
        StoppedTrainingError: `watch` asked for it.
        DivergedError: a loss is not finite.
        LostRankError: another process of the run was lost; what was saved is there.
        DiskFullError, ArtifactWriteError: writing failed; there is no half of an ELM.
    """
    if recipe.block_tokens > architecture.context:
        reason = f"is more than the architecture's context of {architecture.context} tokens"
        raise RecipeError("block_tokens", recipe.block_tokens, reason)
    run = Run(corpora, recipe, scratch, out, watch, threads, cache, last_step, processes, device)
    run.begin({"architecture": {**asdict(architecture), "tokenizer": str(architecture.tokenizer)}})
    home = run.scratch.start
    if not home.is_dir():
        with written_whole(home) as fresh:
            tick = ticking(watch, "tokenizing")
            shares = recipe.shares
            words = write_tokenizer(architecture, run.corpora, shares, fresh, tick)
            save_model(first_weights(architecture.config(words), recipe.seed), fresh)
            write_start(fresh, Start())
    return run.finish(run.data(home), None)


def branch_train(
    forest: Sequence[Elm],
    corpus: Corpus,
    recipe: Recipe,
    *,
    start: StartKind | str = "auto",
    optimizer: OptimizerChoice = "auto",
    scratch: Path,
    out: Path,
    watch: Watch = unwatched,
    threads: int | None = None,
    cache: Path | None = None,
    last_step: int | None = None,
    processes: int | None = None,
    device: str = "auto",
) -> Trained:
    """Train a new ELM on one domain, from the ELMs of a forest, none of which is changed.

    Args:
        forest: its ELMs, and its seed as the one without domain.
        corpus: the new domain.
        recipe: of the training.
        start: auto, nearest, average (see `branching`), seed, or the name of an ELM to copy.
            A forest without ELMs starts from its seed.
        optimizer: continue the optimizer and the schedule of the copied ELM, which kept its
            state (`keep_optimizer`), or reset both. auto continues where that can be, and an
            average always resets.
        scratch, out, watch, threads, cache, last_step, processes, device: as for `train_seed`.

    Raises:
        UnknownStartError: there is no such ELM.
        ElmsError: the ELMs are no forest.
        OptimizerStateError: the optimizer cannot be continued, because the start is an average or
            no state was kept.
        MismatchError: the ELMs to average are not of one seed or one vocabulary.
        and as for `train_seed`.
    """
    if optimizer == "continue" and start == "average":
        raise OptimizerStateError("an average of several ELMs has no optimizer's state; reset it")
    # Once the start is written, nothing of the forest is needed.
    brancher = None
    if not Scratch.begun(scratch):
        tick = ticking(watch, "branching")
        brancher = Brancher(forest, scratch, threads, tick, device=device)
        brancher.check(start)
        check_context(brancher.tokenizer_folder(), recipe.block_tokens)
    run = Run([corpus], recipe, scratch, out, watch, threads, cache, last_step, processes, device)
    run.begin({"start": start, "optimizer": optimizer})
    home = run.scratch.start
    if brancher is not None:
        [data] = run.data(brancher.tokenizer_folder())
        choice = choose(brancher, data, start, optimizer, recipe, corpus)
        with written_whole(home) as fresh:
            write_branch_start(choice, forest, optimizer, fresh)
        brancher.clear()
    return run.finish(run.data(home), corpus.domain)
