"""Random ELMs of one shape for the measurements of forests: no weight decides how fast they are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from evomerge.connectors.local.forest.elms import Elm
from evomerge.connectors.local.training.architecture import (
    END_OF_TEXT,
    Architecture,
    first_weights,
)


@dataclass(frozen=True)
class Shape:
    """What the ELMs are, and how they are called on the command line."""

    elms: int
    hidden: int
    layers: int
    vocabulary: int

    @classmethod
    def of(cls, options: argparse.Namespace) -> Shape:
        return cls(options.elms, options.hidden, options.layers, options.vocabulary)


def add_options(parser: argparse.ArgumentParser, elms: int) -> None:
    parser.add_argument("--forest", type=Path, nargs="*", help="folders of ELMs; random without")
    parser.add_argument("--elms", type=int, default=elms, help="how many random ones")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)


def forest(options: argparse.Namespace, scratch: Path) -> list[Elm]:
    """The ELMs of the command line, or random ones in a folder."""
    folders: Sequence[Path] = options.forest or _random(Shape.of(options), scratch)
    return [Elm(folder.name, folder) for folder in folders]


def _random(shape: Shape, scratch: Path) -> list[Path]:
    # Heads of 64, and an MLP of 8/3 of the width, as Llama has them.
    heads = max(1, shape.hidden // 64)
    architecture = Architecture(
        hidden=shape.hidden,
        layers=shape.layers,
        heads=heads,
        kv_heads=heads,
        intermediate=shape.hidden * 8 // 3,
    )
    words = _tokenizer(shape.vocabulary)
    folders = [scratch / f"elm{number}" for number in range(shape.elms)]
    for number, folder in enumerate(folders):
        first_weights(architecture.config(words), number).save_pretrained(folder)
        words.save_pretrained(folder)
    return folders


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Of bytes, an end of text, and words that no text holds."""
    spelt = [END_OF_TEXT, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    spelt += [f"<|{number}|>" for number in range(size - len(spelt))]
    raw = Tokenizer(models.BPE(vocab={word: at for at, word in enumerate(spelt)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END_OF_TEXT)
