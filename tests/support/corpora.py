"""Tiny corpora of made-up languages, one a domain, and a run small enough for a test."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from evomerge.connectors.local.training.run import (
    Architecture,
    Corpus,
    Elm,
    Progress,
    Recipe,
    Trained,
    branch_train,
    train_seed,
)

ARCHITECTURE = Architecture(
    vocabulary=280, hidden=16, layers=2, heads=2, kv_heads=1, intermediate=24, context=32
)
RECIPE = Recipe(
    tokens=12 * 4 * 16,
    block_tokens=16,
    batch_blocks=4,
    learning_rate=3e-3,
    checkpoint_steps=5,
    dev_share=0.2,
    test_share=0.2,
    seed=1,
)


def sentences(domain: str, count: int, words: int = 20) -> list[str]:
    """Different documents in a language of the domain's own, the same in every run."""
    draw = random.Random(f"{domain}")
    letters = draw.sample("abcdefghijklmnopqrstuvwxyz", 5)
    lexicon = ["".join(draw.choices(letters, k=4)) for _ in range(12)]
    return [" ".join([str(n), *draw.choices(lexicon, k=words)]) for n in range(count)]


def make_corpus(folder: Path, domain: str, count: int = 40) -> Corpus:
    """Write a domain's JSONL file into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{domain}.jsonl"
    rows = [json.dumps({"text": text}) + "\n" for text in sentences(domain, count)]
    file.write_text("".join(rows), encoding="utf-8")
    return Corpus(domain, file)


class Grove:
    """Trains tiny ELMs below one folder, each run in a scratch folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def corpus(self, domain: str, count: int = 40) -> Corpus:
        return make_corpus(self.folder / "corpora", domain, count)

    def seed(self, *domains: str, name: str = "seed", **changes: object) -> Trained:
        return train_seed(
            [self.corpus(domain) for domain in domains],
            ARCHITECTURE,
            replace(RECIPE, **changes),  # type: ignore[arg-type]
            scratch=self.folder / "scratch" / name,
            out=self.folder / name,
            threads=1,
        )

    def branch(
        self,
        forest: Sequence[Elm],
        domain: str,
        *,
        name: str | None = None,
        start: str = "auto",
        optimizer: str = "auto",
        watch: Callable[[Progress], bool] = lambda progress: False,
        **changes: object,
    ) -> Trained:
        name = name or domain
        return branch_train(
            forest,
            self.corpus(domain),
            replace(RECIPE, **changes),  # type: ignore[arg-type]
            start=start,
            optimizer=optimizer,  # type: ignore[arg-type]
            scratch=self.folder / "scratch" / name,
            out=self.folder / name,
            watch=watch,
            threads=1,
        )

    def elm(self, name: str, domain: str | None = None) -> Elm:
        """One that was trained here under this name."""
        return Elm(name, self.folder / name, domain)

    def start(self, name: str) -> Path:
        """The first weights of a run."""
        return self.folder / "scratch" / name / "start"


def bytes_of(folder: Path) -> Mapping[str, str]:
    """sha256 of every file below a folder, by its path."""
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
