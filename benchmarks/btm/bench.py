"""The folder in which models and scores are kept, each made once.

Everything in it is named by the content of what it was made from, and is there whole or not at
all, so that a run which was killed goes on where it was: a model from its latest checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.btm.plan import Model, Settings, key
from benchmarks.btm.texts import Piece, pieces

from evomerge.connectors.local.training.architecture import write_tokenizer
from evomerge.connectors.local.training.controls import random_split, train_mixture
from evomerge.connectors.local.training.recipe import Recipe
from evomerge.connectors.local.training.run import (
    Architecture,
    Corpus,
    Elm,
    Trained,
    branch_train,
    train_seed,
)
from evomerge.evaluation.corpus import Part, Shares, documents
from evomerge.merging.storing import written_whole

_CHECKPOINT_STEPS = 300
_TOKENIZER_BYTES = 8 * 2**20
# Text of a domain that is kept to train on, for each token of it that is trained on at most: about
# twice as much as is needed to see nothing twice.
_CHARACTERS_A_TOKEN = 8
# At least, so that each part of a random split has documents of every domain.
_CHARACTERS = 500_000


@dataclass(frozen=True)
class Bench:
    """Trains the plan's models.

    Attributes:
        settings: of the whole measurement.
        home: the folder.
        sources: every document of each domain, of those that are not trained on as well.
        corpora: the documents of each domain that are trained on, and no others.
        parts: of the random split, by seed of training: its share of each domain.
        content: a hash of all that is trained on.
        architecture: of every model, with its tokenizer.
        threads: CPU threads of one run.
    """

    settings: Settings
    home: Path
    sources: Mapping[str, Path]
    corpora: Mapping[str, Corpus]
    parts: Mapping[int, list[list[Corpus]]]
    content: str
    architecture: Architecture
    threads: int = 1

    def folder(self, model: Model) -> Path:
        """Where a model is, or will be."""
        return self.home / "models" / key(model, self.settings, self.content)

    def pieces(self, domain: str, part: Part) -> tuple[Piece, ...]:
        """What is scored of a domain's `dev` or `test` documents."""
        settings = self.settings
        count = settings.dev_pieces if part == "dev" else settings.test_pieces
        corpus = Corpus(domain, self.sources[domain])
        return pieces(corpus, shares(settings), part, count, settings.piece_characters)

    def train(self, model: Model) -> Trained | None:
        """Train a model whose parent is there; None if it is there itself.

        Raises:
            TrainingError, CorpusError: see `train_seed`.
        """
        folder = self.folder(model)
        if folder.is_dir():
            return None
        scratch = self.home / "scratch" / folder.name
        done = self._trained(model, scratch, folder)
        shutil.rmtree(scratch)
        return done

    def _trained(self, model: Model, scratch: Path, folder: Path) -> Trained:
        recipe = self._recipe(model)
        corpora = self._corpora(model)
        common: dict[str, Any] = {
            "scratch": scratch,
            "out": folder,
            "threads": self.threads,
            "cache": self.home / "tokens",
        }
        if model.parent is None:
            return train_seed(corpora, self.architecture, recipe, **common)
        start = Elm("seed", self.folder(model.parent), None)
        if model.is_seed:
            return train_mixture(start, corpora, recipe, optimizer="continue", **common)
        if len(corpora) == 1:
            common["optimizer"] = "reset"
            return branch_train([start], corpora[0], recipe, start="seed", **common)
        return train_mixture(start, corpora, recipe, domain=model.name, optimizer="reset", **common)

    def _recipe(self, model: Model) -> Recipe:
        return Recipe(
            tokens=model.tokens,
            block_tokens=self.settings.block_tokens,
            batch_blocks=model.blocks,
            learning_rate=self.settings.learning_rate,
            schedule="constant" if model.is_seed else "linear",
            seed=model.seed,
            checkpoint_steps=_CHECKPOINT_STEPS,
            # The corpora hold what is trained on and nothing else.
            dev_share=0.0,
            test_share=0.0,
            keep_optimizer=model.is_seed,
        )

    def _corpora(self, model: Model) -> list[Corpus]:
        if model.part is None:
            return [self.corpora[name] for name in model.domains]
        return self.parts[model.seed][model.part]


def shares(settings: Settings) -> Shares:
    """Which documents are trained on, and which are scored."""
    return Shares(dev=settings.dev_share, test=settings.test_share)


def open_bench(settings: Settings, sources: Mapping[str, Path], home: Path) -> Bench:
    """Write what all runs have in common, where it is not there yet.

    Raises:
        CorpusError: a document cannot be read, or a domain has too few.
        OSError, DiskFullError, ArtifactWriteError: the folder cannot be written.
    """
    content = _content(settings, sources)
    common = home / "common" / content[:16]
    corpora = _training_corpora(settings, sources, common / "corpora")
    splits = {
        seed: random_split(list(corpora.values()), len(corpora), seed, common / f"split-{seed}")
        for seed in settings.seeds
    }
    architecture = Architecture(
        vocabulary=settings.vocabulary,
        hidden=settings.hidden,
        layers=settings.layers,
        heads=settings.heads,
        kv_heads=settings.heads,
        intermediate=settings.intermediate,
        context=4 * settings.block_tokens,
        tokenizer_bytes=_TOKENIZER_BYTES,
    )
    words = common / f"tokenizer-{settings.vocabulary}"
    if not words.is_dir():
        with written_whole(words) as fresh:
            nothing = Shares(dev=0.0, test=0.0)
            write_tokenizer(architecture, corpora.values(), nothing, fresh, lambda: None)
    return Bench(
        settings=settings,
        home=home,
        sources=sources,
        corpora=corpora,
        parts=splits,
        content=content,
        architecture=replace(architecture, tokenizer=words),
    )


def _content(settings: Settings, sources: Mapping[str, Path]) -> str:
    """sha256 of the domains' files, of how they are cut into parts, and of how much is kept."""
    cut = f"{settings.dev_share} {settings.test_share} {_characters(settings)}\n"
    whole = sha256(cut.encode())
    for name in settings.domains:
        with sources[name].open("rb") as file:
            whole.update(f"{name} {sha256(file.read()).hexdigest()}\n".encode())
    return whole.hexdigest()


def _training_corpora(
    settings: Settings, sources: Mapping[str, Path], folder: Path
) -> dict[str, Corpus]:
    if not folder.is_dir():
        with written_whole(folder) as fresh:
            for name in settings.domains:
                texts = _training(settings, sources[name])
                rows = [json.dumps({"text": text}) + "\n" for text in texts]
                (fresh / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    return {name: Corpus(name, folder / f"{name}.jsonl") for name in settings.domains}


def _training(settings: Settings, source: Path) -> Iterator[str]:
    cut = shares(settings)
    left = _characters(settings)
    for document in documents(Corpus(source.stem, source)):
        if cut.part(document.digest) == "train" and left > 0:
            left -= len(document.text)
            yield document.text


def _characters(settings: Settings) -> int:
    needed = _CHARACTERS_A_TOKEN * settings.tokens // len(settings.domains)
    return max(needed, _CHARACTERS)
