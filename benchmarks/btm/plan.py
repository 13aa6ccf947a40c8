"""Which models the claims need, each once.

With equal total tokens T, n domains and a seed share s, a seed is trained on s T tokens of all
domains; then n ELMs get (1 - s) T / n each. What they are compared with goes on from the same seed
and gets the same tokens in the same way, so that only the split differs: the dense model all of
them, on all domains; each model of the random split an n-th, on an n-th of every domain's
documents. The seeds of different shares are one run, its learning rate constant; each branch, the
dense one as well, warms up again and lets it fall.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256

from benchmarks.btm.corpora import EVALUATION, TRAINING

# Of all tokens, spent on the seed; SHARE is what the claims but (d) are tried at.
SHARES = (0.0, 0.2, 0.5, 0.8)
SHARE = 0.5
# Forests of the first so many domains.
FEWER = (2, 4)


@dataclass(frozen=True)
class Settings:
    """All that the numbers depend on, but for the corpora themselves.

    Attributes:
        domains: that are trained on.
        unseen: that no model is trained on.
        tokens: T, of the whole forest.
        seeds: of training.
        hidden, layers, heads, intermediate, vocabulary: of the Llama.
        block_tokens: of a row in training.
        dense_blocks: rows of a step where all domains are trained on.
        elm_blocks: rows of a step of one ELM.
        learning_rate: the highest, everywhere.
        dev_share, test_share: of the documents.
        test_pieces, dev_pieces: of each domain, that are scored.
        piece_characters: of each.
    """

    tokens: int
    seeds: tuple[int, ...] = (1, 2, 3)
    domains: tuple[str, ...] = tuple(TRAINING)
    unseen: tuple[str, ...] = tuple(EVALUATION)
    hidden: int = 192
    layers: int = 5
    heads: int = 6
    intermediate: int = 512
    vocabulary: int = 4096
    block_tokens: int = 128
    dense_blocks: int = 8
    elm_blocks: int = 4
    learning_rate: float = 2e-3
    dev_share: float = 0.12
    test_share: float = 0.15
    test_pieces: int = 24
    dev_pieces: int = 10
    piece_characters: int = 800


@dataclass(frozen=True)
class Model:
    """One training run.

    Attributes:
        name: what it is called.
        domains: trained on in this run, with equal tokens of each.
        tokens: of this run.
        blocks: rows of a step.
        seed: of training.
        parent: the model that it starts from; None for random weights.
        part: of a random split: that n-th of every domain's documents; None for all of them.
        is_seed: whether others start from it: the learning rate stays, and the optimizer is kept.
    """

    name: str
    domains: tuple[str, ...]
    tokens: int
    blocks: int
    seed: int
    parent: Model | None = None
    part: int | None = None
    is_seed: bool = False


@dataclass(frozen=True)
class Forest:
    """Models that belong together, in the order of the domains or parts."""

    elms: tuple[Model, ...]
    seed: Model | None


@dataclass(frozen=True)
class Plan:
    """The models of one seed of training.

    Attributes:
        forests: by seed share.
        dense: by the number of the first domains that it is trained on; all of them for (a).
        random: the forest of the random split.
    """

    forests: dict[float, Forest]
    dense: dict[int, Model]
    random: Forest

    @property
    def seed(self) -> Model:
        """Of the share that most claims are tried at."""
        assert self.random.seed is not None
        return self.random.seed

    def models(self) -> Iterator[Model]:
        """All of them; each after its parent."""
        yield from (forest.seed for forest in self.forests.values() if forest.seed)
        for forest in (*self.forests.values(), self.random):
            yield from forest.elms
        yield from self.dense.values()


def plan(settings: Settings, seed: int) -> Plan:
    """The models of one seed of training."""
    starts = _seeds(settings, seed)
    forests = {share: _forest(settings, seed, share, starts.get(share)) for share in SHARES}
    count = len(settings.domains)
    each = _whole((1 - SHARE) * settings.tokens / count, settings)
    dense = {
        number: Model(
            f"dense of {number}, seed {seed}",
            settings.domains[:number],
            each * number,
            settings.dense_blocks,
            seed,
            starts[SHARE],
        )
        for number in (*(n for n in FEWER if n < count), count)
    }
    parts = (
        Model(
            f"random part {part}, seed {seed}",
            settings.domains,
            each,
            settings.elm_blocks,
            seed,
            starts[SHARE],
            part=part,
        )
        for part in range(count)
    )
    return Plan(forests, dense, Forest(tuple(parts), starts[SHARE]))


def _seeds(settings: Settings, seed: int) -> dict[float, Model]:
    """The seed of each share: the one before it, trained on."""
    found: dict[float, Model] = {}
    before, spent = None, 0
    for share in sorted(filter(None, SHARES)):
        total = _whole(share * settings.tokens, settings)
        before = found[share] = Model(
            f"seed of {share:.0%}, seed {seed}",
            settings.domains,
            total - spent,
            settings.dense_blocks,
            # The order of the blocks hangs on it, and must not begin again.
            1000 * len(found) + seed,
            before,
            is_seed=True,
        )
        spent = total
    return found


def _forest(settings: Settings, seed: int, share: float, start: Model | None) -> Forest:
    each = _whole((1 - share) * settings.tokens / len(settings.domains), settings)
    elms = (
        Model(
            f"{domain} after {share:.0%}, seed {seed}",
            (domain,),
            each,
            settings.elm_blocks,
            # Without a seed in common, each has random weights of its own.
            seed if start else 1000 * (place + 1) + seed,
            start,
        )
        for place, domain in enumerate(settings.domains)
    )
    return Forest(tuple(elms), start)


def _whole(tokens: float, settings: Settings) -> int:
    """Whole steps of the larger batch, so that no run leaves a rest and all totals are equal."""
    step = settings.block_tokens * settings.dense_blocks
    return max(1, round(tokens / step)) * step


def key(model: Model, settings: Settings, corpora: str) -> str:
    """A name for the model that is another one as soon as anything about it is.

    Args:
        corpora: a hash of the training documents.
    """
    # How much is trained and what is scored afterwards says nothing about this run.
    unread = ("tokens", "seeds", "unseen", "domains", "test_pieces", "dev_pieces")
    read = {name: value for name, value in asdict(settings).items() if name not in unread}
    parent = key(model.parent, settings, corpora) if model.parent else None
    own = {**asdict(model), "parent": parent, "settings": read, "corpora": corpora}
    del own["name"]
    return sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:16]
