"""How many tokens a forward takes, counted or guessed, before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.app.errors import InvalidRequestError, UnavailableError
from evomerge.app.schemas.spec import Metric, Objective
from evomerge.evaluation import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Tokens run for one example under one metric.
Counter = Callable[[Example, Metric], int]

_BYTES_A_TOKEN = 4
GENERATED = frozenset(
    {"exact_match", "token_f1", "item_precision", "item_recall", "item_f1", "rouge_l", "chrf"}
)


@dataclass(frozen=True)
class Vocabulary:
    """A base's tokenizer, and how many tokens its context holds."""

    tokenizer: PreTrainedTokenizerBase
    limit: int


def total(examples: Sequence[Example], metrics: Sequence[Metric], count: Counter) -> int:
    """Tokens that one candidate runs through the model."""
    return sum(count(example, metric) for example in examples for metric in metrics)


def guessed(objective: Objective) -> Counter:
    """Four bytes a token, without any tokenizer."""

    def count(example: Example, metric: Metric) -> int:
        asked = len(example.prompt.encode())
        if metric in GENERATED:
            return asked // _BYTES_A_TOKEN + objective.max_new_tokens
        answers = example.choices if metric == "choice_accuracy" else (example.completion,)
        return sum((asked + len(answer.encode())) // _BYTES_A_TOKEN + 1 for answer in answers)

    return count


def vocabulary(folder: Path) -> Vocabulary | None:
    """A base's tokenizer and context; None where the library for it is missing.

    Raises:
        UnavailableError: the base's folder holds no usable tokenizer.
    """
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError:
        return None
    try:
        limit = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError) as error:
        raise UnavailableError(
            "the base's tokenizer cannot be read", param="base", code="base_unavailable"
        ) from error
    return Vocabulary(tokenizer, limit)


def counter(words: Vocabulary, objective: Objective, what: str = "objective.datasets") -> Counter:
    """Exact counts by the base's own tokenizer.

    The counter raises InvalidRequestError for a row of `what` that does not fit into the context,
    or that leaves nothing to score.
    """
    from evomerge.connectors.local.errors import ContextOverflowError, EmptyAnswerError
    from evomerge.connectors.local.rows import RowEncoder

    encoder = RowEncoder(
        words.tokenizer,
        words.limit,
        context_tokens=objective.context_tokens,
        answer_prefix=objective.answer_prefix,
        end_of_text=objective.end_of_text,
    )
    new_tokens = objective.max_new_tokens

    def count(example: Example, metric: Metric) -> int:
        try:
            if metric in GENERATED:
                return len(encoder.asked(example, new_tokens)) + new_tokens
            answers = example.choices if metric == "choice_accuracy" else (None,)
            return sum(len(encoder.scored(example, answer).tokens) for answer in answers)
        except (ContextOverflowError, EmptyAnswerError) as error:
            raise InvalidRequestError(
                f"{what}: {error}", param="objective.datasets", code="row_refused"
            ) from error

    return count


def counted(folder: Path, objective: Objective) -> Counter | None:
    """The counter of the base in `folder`; None where the library for it is missing.

    Raises:
        UnavailableError: as `vocabulary`.
    """
    words = vocabulary(folder)
    return None if words is None else counter(words, objective)
