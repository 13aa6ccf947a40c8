"""Whether the rows of a dataset fit into a base's context, found out once and remembered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from pathlib import Path

from evomerge.app.errors import ConflictError, InvalidRequestError
from evomerge.app.schemas.inputs import DatasetInput
from evomerge.app.schemas.spec import MergeJobSpec, Objective
from evomerge.app.services import tokens
from evomerge.app.services.tokens import Vocabulary
from evomerge.app.worker.benches import Recent
from evomerge.app.worker.errors import InputChangedError
from evomerge.app.worker.inputs import examples_of, metrics, read_data
from evomerge.evaluation import EvaluationError, Example

_REMEMBERED = 10_000
_TOKENIZERS = 2
# What a tokenizer may add of its own before and after a text.
_SPECIAL_TOKENS = 8


class Fitting:
    """Remembers which datasets fit, by everything that it depends on.

    Not for several threads at once, bar `known`.
    """

    def __init__(self) -> None:
        self._fit: OrderedDict[Hashable, None] = OrderedDict()
        self._vocabularies: Recent[str, Vocabulary | None] = Recent(_TOKENIZERS)

    def known(self, base_hash: str, spec: MergeJobSpec, dataset: DatasetInput) -> bool:
        """Whether `check` has passed these rows already."""
        keys = (_every_row(base_hash, spec, dataset), _one_split(base_hash, spec, dataset))
        return any(key in self._fit for key in keys)

    def check(
        self, folder: Path, base_hash: str, spec: MergeJobSpec, dataset: DatasetInput
    ) -> None:
        """Refuse rows that the worker would refuse. Slow: it may tokenize every row.

        Raises:
            InvalidRequestError: a row that the job uses does not fit; names its number.
            ConflictError: the dataset's file is no longer what it was.
            UnavailableError: the base's tokenizer cannot be read.
        """
        words = self._vocabularies.get(base_hash, lambda: tokens.vocabulary(folder))
        try:
            if words is None or _fits(words, spec, examples_of(dataset)):
                self._remember(_every_row(base_hash, spec, dataset))
                return
            # Some rows do not fit, but perhaps the split leaves them out.
            data = read_data(spec, [dataset])
        except InputChangedError as error:
            raise ConflictError(str(error), param="objective.datasets", code=error.code) from error
        except EvaluationError as error:
            raise InvalidRequestError(str(error), param="objective.datasets") from error
        what = f"objective.datasets: dataset {dataset.name!r}"
        count = tokens.counter(words, spec.objective, what)
        tokens.total(data.search.examples, [spec.objective.metric], count)
        tokens.total(data.held_out.examples, metrics(spec), count)
        self._remember(_one_split(base_hash, spec, dataset))

    def _remember(self, key: Hashable) -> None:
        while len(self._fit) >= _REMEMBERED:
            self._fit.popitem(last=False)
        self._fit[key] = None


def _every_row(base_hash: str, spec: MergeJobSpec, dataset: DatasetInput) -> Hashable:
    """What it depends on whether all rows fit, whatever the split."""
    objective = spec.objective
    return (
        base_hash,
        dataset.content_hash,
        frozenset(metrics(spec)),
        objective.context_tokens,
        objective.answer_prefix,
        objective.end_of_text,
        objective.max_new_tokens,
    )


def _one_split(base_hash: str, spec: MergeJobSpec, dataset: DatasetInput) -> Hashable:
    """What it depends on whether the rows that a job uses fit."""
    objective = spec.objective
    return (
        _every_row(base_hash, spec, dataset),
        objective.metric,
        objective.held_out,
        objective.search_examples,
        objective.held_out_examples,
        spec.seed,
    )


def _fits(words: Vocabulary, spec: MergeJobSpec, examples: Iterable[Example]) -> bool:
    """Whether every row fits under every metric; tokenizes those alone that could be too long."""
    objective = spec.objective
    long = [row for row in examples if _most_tokens(row, objective) > words.limit]
    try:
        tokens.total(long, metrics(spec), tokens.counter(words, objective))
    except InvalidRequestError:
        return False
    return True


def _most_tokens(row: Example, objective: Objective) -> float:
    """A bound on a row's tokens without a tokenizer: none is shorter than a byte."""
    if row.messages or objective.context_tokens is not None:
        return float("inf")  # a chat template adds what it likes; a cut has a limit of its own
    answer = max(len(one.encode()) for one in (row.completion, *row.choices))
    text = len(row.prompt.encode()) + len(objective.answer_prefix.encode())
    return text + max(answer, objective.max_new_tokens) + _SPECIAL_TOKENS
