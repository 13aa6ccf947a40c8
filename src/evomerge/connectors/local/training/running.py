"""What all training runs have in common: from corpora to a folder with an ELM."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from evomerge.connectors.local.headers import content_hash
from evomerge.connectors.local.training.architecture import copy_tokenizer, load_tokenizer
from evomerge.connectors.local.training.errors import RecipeError
from evomerge.connectors.local.training.perplexity import EvaluationRows, mean_loss
from evomerge.connectors.local.training.placement import place
from evomerge.connectors.local.training.plan import Plan
from evomerge.connectors.local.training.progress import Watch, ticking
from evomerge.connectors.local.training.ranks import held_together, ranks
from evomerge.connectors.local.training.recipe import Recipe
from evomerge.connectors.local.training.saving import save_model
from evomerge.connectors.local.training.scratch import Scratch, sweep_unfinished
from evomerge.connectors.local.training.start import (
    Start,
    read_start,
    write_optimizer,
)
from evomerge.connectors.local.training.tokens import TokenCache, token_cache
from evomerge.connectors.local.training.trainer import Trainer
from evomerge.evaluation.corpus import Corpus, check_domains, read_content
from evomerge.merging.checkpoint.lineage import Lineage, Parent, write_lineage
from evomerge.merging.storing import written_whole


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        folder: the ELM's checkpoint, with elm.json.
        content_hash: of the checkpoint.
        lineage: the content of elm.json.
        steps: optimizer steps of the run.
        processes: that shared each batch.
        tokens: seen since the random start.
        own_tokens: seen in this run.
        domain_tokens: of those, by domain.
        train_loss: mean of the last 50 steps, nats a token.
        dev_losses: on the development documents of each domain that has any, nats a token.
        parents: weights of the ELMs that it began with, by name.
        posterior: of the forest's ELMs on the new domain, by name; None where nothing was measured.
        start_losses: of the starts that were tried on the development sample; likewise.
    """

    folder: Path
    content_hash: str
    lineage: Lineage
    steps: int
    processes: int
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


class Run:
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
        last_step: int | None = None,
        processes: int | None = None,
        device: str = "auto",
    ) -> None:
        check_domains(corpora)
        if last_step is not None and last_step < 1:
            raise RecipeError("last_step", last_step, "must be at least 1")
        self.corpora = sorted(corpora, key=lambda corpus: corpus.domain)
        self.scratch = Scratch(scratch)
        self._recipe = recipe
        self._out = out
        self._watch = watch
        self._threads = threads
        self._placement = place(device, processes, recipe.batch_blocks)
        self._steps = recipe.steps if last_step is None else min(recipe.steps, last_step)
        self._cache = cache or self.scratch.tokens
        self._hashes: dict[str, str] = {}

    def begin(self, arguments: Mapping[str, Any]) -> None:
        """Read the corpora, and hold the scratch folder to this run."""
        sweep_unfinished(self._out)
        # OpenMP counts threads per calling thread.
        torch.set_num_threads(self._threads or torch.get_num_threads())
        tick = ticking(self._watch, "reading")
        self._hashes = {
            corpus.domain: read_content(corpus, tick).content_hash for corpus in self.corpora
        }
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
        parts = self._development(data)
        start = read_start(self.scratch.start)
        plan = Plan(
            self.scratch.start,
            self.scratch.checkpoints,
            data,
            recipe,
            self._steps,
            self._threads_each(),
            self._placement,
        )
        with ranks(plan) as others:
            trainer = plan.trainer()
            trainer.run(held_together(self._watch, others))
        losses = {name: self._loss(trainer, part) for name, part in parts.items()}
        lineage = self._lineage(start, domain)
        self._write(trainer, start, lineage)
        seen = trainer.batches.blocks_seen(self._steps)
        return Trained(
            folder=self._out,
            content_hash=content_hash(self._out),
            lineage=lineage,
            steps=self._steps,
            processes=self._placement.processes,
            tokens=lineage.tokens,
            own_tokens=self._own_tokens,
            domain_tokens={name: count * recipe.block_tokens for name, count in seen.items()},
            train_loss=sum(trainer.losses) / len(trainer.losses),
            dev_losses=losses,
            parents={parent.name: parent.weight for parent in start.parents},
            posterior=start.posterior,
            start_losses=start.losses,
        )

    def _threads_each(self) -> int:
        """CPU threads of each process: as asked, or what there are, shared where the CPU is."""
        if self._threads is not None or not self._placement.on_cpu:
            return torch.get_num_threads()
        return max(1, torch.get_num_threads() // self._placement.processes)

    @property
    def _own_tokens(self) -> int:
        return self._steps * self._recipe.batch_tokens

    def _development(self, data: Sequence[TokenCache]) -> dict[str, EvaluationRows]:
        """Of the domains that have development documents; a share of few may be none."""
        parts = [(cache, EvaluationRows(cache, "dev", self._recipe.block_tokens)) for cache in data]
        return {cache.domain: part for cache, part in parts if len(part)}

    def _loss(self, trainer: Trainer, part: EvaluationRows) -> float:
        steps = self._steps
        tick = ticking(self._watch, "evaluating", steps, steps)
        rows = self._recipe.micro_blocks or self._recipe.batch_blocks
        return mean_loss(trainer.model, part, rows, trainer.device, tick)

    def _lineage(self, start: Start, domain: str | None) -> Lineage:
        return Lineage(
            seed_hash=start.seed_hash,
            domain=domain,
            parents=tuple(Parent(each.content_hash, each.weight) for each in start.parents),
            tokens=start.tokens + self._own_tokens,
            own_tokens=self._own_tokens,
            corpus_hash=_joined(self._hashes),
            optimizer=start.policy,
        )

    def _write(self, trainer: Trainer, start: Start, lineage: Lineage) -> None:
        steps = self._steps
        ticking(self._watch, "saving", steps, steps)()
        with written_whole(self._out) as fresh:
            save_model(trainer.model, fresh)
            copy_tokenizer(self.scratch.start, fresh)
            write_lineage(fresh, lineage)
            if self._recipe.keep_optimizer:
                done = start.schedule_done + self._own_tokens
                write_optimizer(fresh, trainer.state(), done)


def _joined(hashes: Mapping[str, str]) -> str:
    """One hash for the corpora of several domains; a single one's own."""
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{domain}\0{hashes[domain]}\n" for domain in sorted(hashes))
    return sha256(lines.encode()).hexdigest()
