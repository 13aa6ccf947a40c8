"""Controls of a forest: what its tokens give without it (arXiv 2208.03306, sections 4 and 5).

The dense baseline is one model trained on all domains with the tokens of the whole forest. The
random-split forest has as many ELMs of as many tokens, each trained on a random part of every
domain's documents: where it loses to the domain forest, it is specialisation that won.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TextIO

from evomerge.connectors.local.training.architecture import Architecture
from evomerge.connectors.local.training.branch_start import OptimizerChoice, write_branch_start
from evomerge.connectors.local.training.branching import Brancher, Elm
from evomerge.connectors.local.training.errors import ElmsError, RecipeError
from evomerge.connectors.local.training.progress import Watch, ticking, unwatched
from evomerge.connectors.local.training.recipe import Recipe
from evomerge.connectors.local.training.run import train_seed
from evomerge.connectors.local.training.running import Run, Trained
from evomerge.connectors.local.training.start import check_context
from evomerge.evaluation.corpus import Corpus, EmptyDomainError, check_domains, documents
from evomerge.merging.checkpoint.lineage import read_lineage
from evomerge.merging.storing import written_whole


def forest_tokens(forest: Sequence[Elm]) -> int:
    """Tokens that a forest was trained on in all: the seed's once, and each ELM's own.

    Raises:
        ElmsError: the seed is not among them, or nobody knows what an ELM has seen.
    """
    if sum(elm.domain is None for elm in forest) != 1:
        names = [elm.name for elm in forest]
        raise ElmsError("forest", names, "must have its one seed among them, without domain")
    total = 0
    for elm in forest:
        own = read_lineage(elm.folder).own_tokens
        if not own:
            raise ElmsError("forest", elm.name, "says nowhere how many tokens it was trained on")
        total += own
    return total


def train_dense(
    corpora: Sequence[Corpus],
    architecture: Architecture,
    recipe: Recipe,
    forest: Sequence[Elm],
    *,
    scratch: Path,
    out: Path,
    watch: Watch = unwatched,
    threads: int | None = None,
    cache: Path | None = None,
) -> Trained:
    """Train the dense baseline: one model from random weights, on the forest's number of tokens.

    Args:
        corpora: the domains of the forest.
        recipe: of the training; its own number of tokens is not read.
        forest: with its seed; see `forest_tokens`.
        architecture, scratch, out, watch, threads, cache: as for `train_seed`.

    Raises:
        ElmsError: the forest's tokens are unknown.
        RecipeError: they are no whole number of the recipe's batches.
        and as for `train_seed`.
    """
    tokens = forest_tokens(forest)
    if tokens % recipe.batch_tokens:
        reason = f"must divide the forest's {tokens} tokens, for equal ones"
        raise RecipeError("batch_tokens", recipe.batch_tokens, reason)
    equal = replace(recipe, tokens=tokens, schedule_tokens=None)
    return train_seed(
        corpora,
        architecture,
        equal,
        scratch=scratch,
        out=out,
        watch=watch,
        threads=threads,
        cache=cache,
    )


def train_mixture(
    start: Elm,
    corpora: Sequence[Corpus],
    recipe: Recipe,
    *,
    domain: str | None = None,
    optimizer: OptimizerChoice = "auto",
    scratch: Path,
    out: Path,
    watch: Watch = unwatched,
    threads: int | None = None,
    cache: Path | None = None,
) -> Trained:
    """Train a copy of one ELM on several domains, on equal tokens of each.

    An ELM of a random-split forest is one; so is a dense model that goes on from the seed.

    Args:
        start: the ELM, usually the seed.
        corpora: the domains, or parts of them.
        domain: what the lineage calls them all together.
        recipe, optimizer, scratch, out, watch, threads, cache: as for `branch_train`.

    Raises:
        As for `branch_train`.
    """
    check_context(start.folder, recipe.block_tokens)
    run = Run(corpora, recipe, scratch, out, watch, threads, cache)
    run.begin({"start": start.name, "optimizer": optimizer, "mixture": domain})
    home = run.scratch.start
    if not home.is_dir():
        brancher = Brancher([start], run.scratch.folder, threads, ticking(watch, "branching"))
        with written_whole(home) as fresh:
            write_branch_start(brancher.named(start.name), [start], optimizer, fresh)
    return run.finish(run.data(home), domain)


def random_split(
    corpora: Sequence[Corpus], parts: int, seed: int, folder: Path
) -> list[list[Corpus]]:
    """Deal every domain's documents at random into parts, one for each ELM of a random forest.

    Which part a document falls to is a function of the seed and its text, independent of whether
    it trains, develops or tests. The documents are written as JSONL, each domain of each part in
    a file of its own, so that training can go on balancing domains.

    Args:
        corpora: the domains.
        parts: how many.
        seed: another one deals otherwise.
        folder: to be made; replaced if it is there.

    Returns:
        For each part, its share of each domain, in the order given.

    Raises:
        ElmsError: fewer than one part.
        CorpusError: a document cannot be read.
        EmptyDomainError: a part gets no document of a domain.
        DiskFullError, ArtifactWriteError: writing failed; nothing was left behind.
    """
    check_domains(corpora)
    if parts < 1:
        raise ElmsError("parts", parts, "must be at least 1")
    with written_whole(folder) as fresh:
        for place, corpus in enumerate(corpora):
            counts = _deal(corpus, parts, seed, fresh, place)
            if empty := [part for part, count in counts.items() if not count]:
                reason = f"gives no document to part {empty[0]} of {parts}"
                raise EmptyDomainError(corpus.domain, corpus.path, reason)
    return [
        [Corpus(corpus.domain, folder / _file(part, place)) for place, corpus in enumerate(corpora)]
        for part in range(parts)
    ]


def _deal(corpus: Corpus, parts: int, seed: int, folder: Path, place: int) -> Mapping[int, int]:
    """Write one domain's documents; how many each part got."""
    counts = dict.fromkeys(range(parts), 0)
    with ExitStack() as files:
        streams: list[TextIO] = [
            files.enter_context((folder / _file(part, place)).open("w", encoding="utf-8"))
            for part in range(parts)
        ]
        for document in documents(corpus):
            # A hash of its own: the document's digest alone already says what it is there for.
            drawn = sha256(f"{seed}:".encode() + document.digest).digest()
            part = int.from_bytes(drawn[:8], "big") % parts
            counts[part] += 1
            streams[part].write(json.dumps({"text": document.text}, ensure_ascii=False) + "\n")
    return counts


def _file(part: int, place: int) -> str:
    return f"part-{part}-domain-{place}.jsonl"
