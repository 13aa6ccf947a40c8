"""The base: what it reads, its tokenizer, and its training from random weights.

It learns the tasks' kinds in languages and scripts that no expert has, and the experts' languages
from answers alone. So it knows the formats and has read the words, and none of the experts' tasks.
Whatever is searched or held out, in any domain, is not in what it reads.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.repository.settings import Settings
from benchmarks.repository.tasks import Task, rows_of
from benchmarks.repository.training import train
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast

from evomerge.connectors.local.rows import Row, RowEncoder
from evomerge.connectors.local.training.architecture import END_OF_TEXT, first_weights
from evomerge.connectors.local.training.saving import save_model
from evomerge.evaluation.example import Example


def write_base(settings: Settings, folder: Path, say: Callable[[str], None]) -> None:
    """Train the base and write it, in bfloat16, with its tokenizer."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    recipe = settings.base
    asked, plain = reading(settings)
    tokenizer = _tokenizer([*map(_whole, asked), *plain], recipe.vocabulary)
    tokenizer.model_max_length = recipe.context
    tokenizer.save_pretrained(folder)
    model = first_weights(_config(settings, tokenizer), settings.seed)
    size = sum(weight.numel() for weight in model.parameters())
    say(f"base: {size:,} parameters, {len(asked):,} questions and {len(plain):,} answers to read")

    def told(step: int, loss: float) -> None:
        if step % max(1, recipe.steps // 15) == 0:
            say(f"base: step {step} of {recipe.steps}, loss {loss:.3f}")

    train(
        model,
        _rows(tokenizer, asked, plain, recipe.plain),
        steps=recipe.steps,
        batch=recipe.batch,
        learning_rate=recipe.learning_rate,
        weight_decay=0.1,
        seed=settings.seed,
        say=told,
    )
    save_model(model.bfloat16(), folder)


def reading(settings: Settings) -> tuple[list[Example], list[str]]:
    """(rows of the background's tasks, answers in the experts' domains), training rows alone."""
    asked = [row for name in settings.background for row in rows_of(Task.of(name))["train"]]
    plain = [
        f"{task.asks_in} {row.completion}"
        for task in map(Task.of, settings.experts)
        for row in rows_of(task)["train"]
    ]
    return asked, list(dict.fromkeys(plain))


def _whole(example: Example) -> str:
    return f"{example.prompt} {example.completion}"


def _tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which every digit is a token, for numbers are read digit by digit."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=END_OF_TEXT, clean_up_tokenization_spaces=False
    )


def _config(settings: Settings, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    recipe = settings.base
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )


def _rows(
    tokenizer: Any, asked: Sequence[Example], plain: Sequence[str], share: float
) -> list[Row]:
    """Every token but the first is learned; answers alone make up their share of the rows."""
    wanted = round(len(asked) * share / (1 - share))
    repeated = list(plain) * math.ceil(wanted / len(plain))
    alone = [tokenizer.encode(text) for text in random.Random(0).sample(repeated, wanted)]
    rows = RowEncoder(tokenizer, tokenizer.model_max_length)
    whole = [list(rows.scored(example).tokens) for example in asked]
    end = [tokenizer.eos_token_id]
    return [Row(tuple(ids), 1) for ids in (*whole, *(each + end for each in alone))]
