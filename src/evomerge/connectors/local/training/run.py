"""Training runs, whole: a seed on several domains, a branch on one.

Both are called with a scratch folder of their own. Called again after a kill, with the same
arguments, they go on from its latest checkpoint and give the same ELM, to the bit (on a CPU, with
the same number of threads). The scratch folder is the caller's to delete.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast, get_args

import torch

from evomerge.connectors.local.headers import content_hash, model_files
from evomerge.connectors.local.training.architecture import (
    Architecture,
    copy_tokenizer,
    first_weights,
    load_tokenizer,
    write_tokenizer,
)
from evomerge.connectors.local.training.balance import BalancedBatches
from evomerge.connectors.local.training.blocks import Blocks
from evomerge.connectors.local.training.branching import (
    Brancher,
    Choice,
    Elm,
    Measured,
    development_sample,
)
from evomerge.connectors.local.training.checkpoints import Checkpoints
from evomerge.connectors.local.training.errors import (
    OptimizerStateError,
    RecipeError,
    StoppedTrainingError,
)
from evomerge.connectors.local.training.perplexity import EvaluationRows, mean_loss
from evomerge.connectors.local.training.progress import Progress, Watch, ticking, unwatched
from evomerge.connectors.local.training.recipe import Recipe
from evomerge.connectors.local.training.scratch import Scratch, sweep_unfinished
from evomerge.connectors.local.training.start import (
    Start,
    StartParent,
    copy_optimizer,
    has_optimizer,
    load_model,
    read_optimizer,
    read_start,
    write_optimizer,
    write_start,
)
from evomerge.connectors.local.training.tokens import TokenCache, corpus_hash, token_cache
from evomerge.connectors.local.training.trainer import Trainer
from evomerge.evaluation.corpus import Corpus, EmptyDomainError, check_domains
from evomerge.merging.checkpoint.lineage import Lineage, Parent, read_lineage, write_lineage
from evomerge.merging.storing import copy_file, written_whole

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
OptimizerChoice: TypeAlias = Literal["auto", "continue", "reset"]


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        folder: the ELM's checkpoint, with elm.json.
        content_hash: of the checkpoint.
        lineage: the content of elm.json.
        steps: optimizer steps of the run.
        tokens: seen since the random start.
        own_tokens: seen in this run.
        domain_tokens: of those, by domain.
        train_loss: mean of the last 50 steps, nats a token.
        dev_losses: on each domain's development documents, nats a token; none without such.
        parents: weights of the ELMs that it began with, by name.
        posterior: of the forest's ELMs on the new domain, by name; None where nothing was measured.
        start_losses: of the starts that were tried on the development sample; likewise.
    """

    folder: Path
    content_hash: str
    lineage: Lineage
    steps: int
    tokens: int
    own_tokens: int
    domain_tokens: Mapping[str, int]
    train_loss: float
    dev_losses: Mapping[str, float]
    parents: Mapping[str, float]
    posterior: Mapping[str, float] | None
    start_losses: Mapping[str, float] | None

    @property
    def dev_loss(self) -> float | None:
        """Mean of the domains' development losses, all alike; None without any."""
        losses = self.dev_losses.values()
        return sum(losses) / len(losses) if losses else None

    @property
    def perplexity(self) -> float | None:
        """exp of `dev_loss`."""
        return None if self.dev_loss is None else math.exp(self.dev_loss)


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
) -> Trained:
    """Train a seed from random weights, on equal tokens of each domain.

    Args:
        corpora: its domains; their order says nothing.
        architecture: of the model, and its tokenizer.
        recipe: of the training.
        scratch: the run's own folder.
        out: the seed's folder; replaced if it is there.
        watch: see `Watch`.
        threads: CPU threads; torch's own choice by default.
        cache: folder of token caches, to share them between runs; in `scratch` by default.

    Raises:
        CorpusError: domains are missing or there twice, or documents cannot be read.
        TooFewTokensError: a domain does not fill a block.
        RecipeError: the blocks are longer than the architecture's context.
        BaseFolderError: the tokenizer cannot be loaded.
        ChangedRunError: `scratch` holds a run of other arguments.
        StoppedTrainingError: `watch` asked for it.
        DivergedError: a loss is not finite.
        DiskFullError, ArtifactWriteError: writing failed; there is no half of an ELM.
    """
    if recipe.block_tokens > architecture.context:
        reason = f"is more than the architecture's context of {architecture.context}"
        raise RecipeError("block_tokens", recipe.block_tokens, reason)
    run = _Run(corpora, recipe, scratch, out, watch, threads, cache)
    run.begin({"architecture": {**asdict(architecture), "tokenizer": str(architecture.tokenizer)}})
    home = run.scratch.start
    if not home.is_dir():
        with written_whole(home) as fresh:
            tick = ticking(watch, "tokenizing")
            shares = recipe.shares
            words = write_tokenizer(architecture, run.corpora, shares, fresh, tick)
            first_weights(architecture.config(words), recipe.seed).save_pretrained(fresh)
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
        scratch, out, watch, threads, cache: as for `train_seed`.

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
    run = _Run([corpus], recipe, scratch, out, watch, threads, cache)
    run.begin({"start": start, "optimizer": optimizer})
    home = run.scratch.start
    if not home.is_dir():
        tick = ticking(watch, "branching")
        brancher = Brancher(forest, run.scratch.folder, threads, tick)
        [data] = run.data(brancher.tokenizer_folder())
        choice = _chosen(brancher, data, start, optimizer, recipe, corpus)
        with written_whole(home) as fresh:
            _write_first(choice, forest, optimizer, fresh)
    return run.finish(run.data(home), corpus.domain)


def _chosen(
    brancher: Brancher,
    data: TokenCache,
    start: str,
    optimizer: OptimizerChoice,
    recipe: Recipe,
    corpus: Corpus,
) -> Choice:
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


def _write_first(
    choice: Choice, forest: Sequence[Elm], optimizer: OptimizerChoice, folder: Path
) -> None:
    """The first weights, what is known of them, and the optimizer's state if it is continued."""
    parents = [elm for elm in forest if elm.name in choice.weights]
    hashes = {elm.name: content_hash(elm.folder) for elm in parents}
    lineages = {elm.name: read_lineage(elm.folder) for elm in parents}
    one = parents[0]
    single = len(parents) == 1
    if optimizer == "continue" and not (single and has_optimizer(choice.folder)):
        raise OptimizerStateError(f"{one.name!r} was trained without keep_optimizer")
    goes_on = optimizer != "reset" and single and has_optimizer(choice.folder)
    for path in model_files(choice.folder):
        copy_file(path, folder / path.name)
    done = 0
    if goes_on:
        copy_optimizer(choice.folder, folder)
        done = read_optimizer(choice.folder)[1]
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


class _Run:
    """The part that all runs have in common."""

    def __init__(
        self,
        corpora: Sequence[Corpus],
        recipe: Recipe,
        scratch: Path,
        out: Path,
        watch: Watch,
        threads: int | None,
        cache: Path | None,
    ) -> None:
        check_domains(corpora)
        self.corpora = sorted(corpora, key=lambda corpus: corpus.domain)
        self.scratch = Scratch(scratch)
        self._recipe = recipe
        self._out = out
        self._watch = watch
        self._threads = threads
        self._cache = cache or self.scratch.tokens
        self._hashes: dict[str, str] = {}

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Read the corpora, and hold the scratch folder to this run."""
        sweep_unfinished(self._out)
        # OpenMP counts threads per calling thread.
        torch.set_num_threads(self._threads or torch.get_num_threads())
        tick = ticking(self._watch, "reading")
        self._hashes = {corpus.domain: corpus_hash(corpus, tick) for corpus in self.corpora}
        self.scratch.begin({**arguments, **asdict(self._recipe), "corpora": self._hashes})

    def data(self, tokenizer_folder: Path) -> list[TokenCache]:
        """The tokens of each domain, enough of them."""
        words = load_tokenizer(tokenizer_folder)
        tick = ticking(self._watch, "tokenizing")
        shares = self._recipe.shares
        return [
            token_cache(corpus, self._hashes[corpus.domain], words, shares, self._cache, tick)
            for corpus in self.corpora
        ]

    def finish(self, data: Sequence[TokenCache], domain: str | None) -> Trained:
        """Train from where the scratch folder is, and write the ELM."""
        recipe = self._recipe
        blocks = [Blocks(cache, "train", recipe.block_tokens) for cache in data]
        parts = self._development(data)
        start = read_start(self.scratch.start)
        goes_on = start.policy == "continue"
        trainer = Trainer(
            load_model(self.scratch.start),
            BalancedBatches(blocks, recipe.batch_blocks, recipe.seed),
            recipe,
            Checkpoints(self.scratch.checkpoints),
            optimizer=read_optimizer(self.scratch.start)[0] if goes_on else {},
            schedule_done=start.schedule_done,
        )
        trainer.run(self._watch)
        losses = {name: self._loss(trainer, part) for name, part in parts.items()}
        lineage = self._lineage(start, domain)
        self._write(trainer, start, lineage)
        seen = trainer.batches.blocks_seen(recipe.steps)
        return Trained(
            folder=self._out,
            content_hash=content_hash(self._out),
            lineage=lineage,
            steps=recipe.steps,
            tokens=lineage.tokens,
            own_tokens=recipe.own_tokens,
            domain_tokens={name: count * recipe.block_tokens for name, count in seen.items()},
            train_loss=sum(trainer.losses) / len(trainer.losses),
            dev_losses=losses,
            parents={parent.name: parent.weight for parent in start.parents},
            posterior=start.posterior,
            start_losses=start.losses,
        )

    def _development(self, data: Sequence[TokenCache]) -> dict[str, EvaluationRows]:
        if not self._recipe.dev_share:
            return {}
        parts = {
            cache.domain: EvaluationRows(cache, "dev", self._recipe.block_tokens) for cache in data
        }
        for corpus in self.corpora:
            if not len(parts[corpus.domain]):
                reason = f"has no development document at dev_share={self._recipe.dev_share}"
                raise EmptyDomainError(corpus.domain, corpus.path, reason)
        return parts

    def _loss(self, trainer: Trainer, part: EvaluationRows) -> float:
        steps = self._recipe.steps
        tick = ticking(self._watch, "evaluating", steps, steps)
        rows = self._recipe.micro_blocks or self._recipe.batch_blocks
        return mean_loss(trainer.model, part, rows, trainer.device, tick)

    def _lineage(self, start: Start, domain: str | None) -> Lineage:
        return Lineage(
            seed_hash=start.seed_hash,
            domain=domain,
            parents=tuple(Parent(each.content_hash, each.weight) for each in start.parents),
            tokens=start.tokens + self._recipe.own_tokens,
            own_tokens=self._recipe.own_tokens,
            corpus_hash=_joined(self._hashes),
            optimizer=start.policy,
        )

    def _write(self, trainer: Trainer, start: Start, lineage: Lineage) -> None:
        steps = self._recipe.steps
        ticking(self._watch, "saving", steps, steps)()
        with written_whole(self._out) as fresh:
            trainer.model.save_pretrained(fresh)
            copy_tokenizer(self.scratch.start, fresh)
            write_lineage(fresh, lineage)
            if self._recipe.keep_optimizer:
                done = start.schedule_done + self._recipe.own_tokens
                write_optimizer(fresh, trainer.state(), done)


def _joined(hashes: Mapping[str, str]) -> str:
    """One hash for the corpora of several domains; a single one's own."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{domain}\0{hashes[domain]}\n" for domain in sorted(hashes))
    return sha256(lines.encode()).hexdigest()
