"""What a seed is before it is trained: a small Llama's configuration, and its tokenizer."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from evomerge.connectors.local.errors import BaseFolderError
from evomerge.connectors.local.loading import making_a_model
from evomerge.connectors.local.training.errors import RecipeError
from evomerge.connectors.local.training.progress import Tick
from evomerge.evaluation.corpus import Corpus, Shares, documents
from evomerge.merging.checkpoint.files import TOKENIZER_FILES

END_OF_TEXT = "<|endoftext|>"
# The alphabet of bytes and the end of a text.
_LEAST_VOCABULARY = 257


@dataclass(frozen=True)
class Architecture:
    """A Llama with tied embeddings, and where its tokenizer comes from.

    Attributes:
        vocabulary: tokens, the 256 bytes and the end of a text among them; of a tokenizer that
            is trained here. One taken from a folder brings its own.
        hidden: width.
        layers: depth.
        heads: attention heads; they divide the width.
        kv_heads: heads of keys and values; they divide the heads.
        intermediate: width of the MLP.
        context: tokens that a row may have at most.
        tokenizer: folder with a tokenizer to take; None to train a byte-level BPE on the
            training documents.
        tokenizer_bytes: bytes of training documents that it is trained on, the same from each
            domain.

    Raises:
        RecipeError: a field is out of range.
    """

    vocabulary: int = 4096
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 4
    intermediate: int = 688
    context: int = 1024
    tokenizer: Path | None = None
    tokenizer_bytes: int = 32 * 2**20

    def __post_init__(self) -> None:
        sizes = asdict(self)
        for field in ("hidden", "layers", "heads", "kv_heads", "intermediate", "context"):
            if sizes[field] < 1:
                raise RecipeError(field, sizes[field], "must be at least 1")
        if self.vocabulary < _LEAST_VOCABULARY:
            reason = f"must be at least {_LEAST_VOCABULARY}"
            raise RecipeError("vocabulary", self.vocabulary, reason)
        if self.hidden % (2 * self.heads):
            reason = f"must be an even multiple of heads={self.heads}"
            raise RecipeError("hidden", self.hidden, reason)
        if self.heads % self.kv_heads:
            raise RecipeError("kv_heads", self.kv_heads, f"must divide heads={self.heads}")
        if self.tokenizer_bytes < 1:
            raise RecipeError("tokenizer_bytes", self.tokenizer_bytes, "must be at least 1")

    def config(self, tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
        """Its configuration for the tokens of a tokenizer."""
        return LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=None,
        )


def first_weights(config: Any, seed: int) -> PreTrainedModel:
    """A Llama with random float32 weights, the same for the same seed."""
    with making_a_model(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def write_tokenizer(
    architecture: Architecture, corpora: Iterable[Corpus], shares: Shares, out: Path, tick: Tick
) -> PreTrainedTokenizerBase:
    """Write the seed's tokenizer into a folder: the one to take, or one that is trained.

    Raises:
        BaseFolderError: there is no tokenizer in the folder, or it has no end-of-text token.
        CorpusError: a document cannot be read.
        StoppedTrainingError: `tick` was told to stop.
    """
    if architecture.tokenizer is not None:
        taken = load_tokenizer(architecture.tokenizer)
        copy_tokenizer(architecture.tokenizer, out)
        return taken
    trained = _trained(architecture, corpora, shares, tick)
    trained.save_pretrained(out)
    return trained


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder: a fast one, with an end-of-text token.

    Raises:
        BaseFolderError: it cannot be loaded, or is not such.
    """
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except (ValueError, KeyError, OSError) as error:
        raise BaseFolderError(folder, f"its tokenizer cannot be loaded: {error}") from error
    if not isinstance(found, PreTrainedTokenizerFast):
        raise BaseFolderError(folder, "has no tokenizer.json")
    if found.eos_token_id is None:
        raise BaseFolderError(folder, "its tokenizer has no end-of-text token")
    return found


def copy_tokenizer(folder: Path, out: Path) -> None:
    """The files of a tokenizer, byte by byte."""
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)


def _trained(
    architecture: Architecture, corpora: Iterable[Corpus], shares: Shares, tick: Tick
) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=architecture.vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    sources = list(corpora)
    most = max(1, architecture.tokenizer_bytes // len(sources))
    raw.train_from_iterator(_sample(sources, shares, most, tick), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw,
        eos_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=architecture.context,
    )


def _sample(corpora: Iterable[Corpus], shares: Shares, most: int, tick: Tick) -> Iterator[str]:
    """Training documents until each domain has given so many bytes, its last one cut."""
    for corpus in corpora:
        left = most
        for document in documents(corpus):
            tick()
            if shares.part(document.digest) != "train":
                continue
            # Cut by characters, so that no character is; a byte or more each.
            text = document.text[:left]
            left -= len(text.encode())
            yield text
            if left <= 0:
                break
