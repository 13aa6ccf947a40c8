"""How many tokens a forward takes, counted or guessed, before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.app.errors import InvalidRequestError, UnavailableError
from evomerge.app.schemas.spec import Metric, Objective
from evomerge.evaluation import Example

if TYPE_CHECKING:
    from evomerge.connectors.local.rows import RowEncoder

# Tokens run for one example under one metric.
Counter = Callable[[Example, Metric], int]

_BYTES_A_TOKEN = 4
_GENERATED = frozenset(
    {"exact_match", "token_f1", "item_precision", "item_recall", "item_f1", "rouge_l", "chrf"}
)


def total(examples: Sequence[Example], metrics: Sequence[Metric], count: Counter) -> int:
    """Tokens that one candidate runs through the model."""
    return sum(count(example, metric) for example in examples for metric in metrics)


def guessed(objective: Objective) -> Counter:
    """Four bytes a token, without any tokenizer."""

    def count(example: Example, metric: Metric) -> int:
        asked = len(example.prompt.encode())
        if metric in _GENERATED:
            return asked // _BYTES_A_TOKEN + objective.max_new_tokens
        answers = example.choices if metric == "choice_accuracy" else (example.completion,)
        return sum((asked + len(answer.encode())) // _BYTES_A_TOKEN + 1 for answer in answers)

    return count


def counted(folder: Path, objective: Objective) -> Counter | None:
    """Exact counts by the base's own tokenizer; None where the library for it is missing.

    The counter raises InvalidRequestError for a row that does not fit into the context.

    Raises:
        UnavailableError: the base's folder holds no usable tokenizer.
    """
    try:
        from transformers import AutoTokenizer

        from evomerge.connectors.local.rows import RowEncoder
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
    encoder = RowEncoder(
        tokenizer,
        limit,
        context_tokens=objective.context_tokens,
        answer_prefix=objective.answer_prefix,
        end_of_text=objective.end_of_text,
    )
    return _counter(encoder, objective.max_new_tokens)


def _counter(encoder: RowEncoder, new_tokens: int) -> Counter:
    from evomerge.connectors.local.errors import ContextOverflowError, EmptyAnswerError

    def count(example: Example, metric: Metric) -> int:
        try:
            if metric in _GENERATED:
                return len(encoder.asked(example, new_tokens)) + new_tokens
            answers = example.choices if metric == "choice_accuracy" else (None,)
            return sum(len(encoder.scored(example, answer).tokens) for answer in answers)
        except (ContextOverflowError, EmptyAnswerError) as error:
            raise InvalidRequestError(
                f"objective.datasets: {error}", param="objective.datasets", code="row_refused"
            ) from error

    return count
