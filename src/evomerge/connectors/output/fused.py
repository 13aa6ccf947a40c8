"""One question to a finished output merge: the answers of its experts become its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.output.evidence import Given, completions, option_log_probs
from evomerge.connectors.output.task import Task
from evomerge.connectors.output.tokens import text_scores
from evomerge.connectors.output.words import Said, item_votes, text_utilities
from evomerge.evaluation.example import Example
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.agreement import AgreementFusion
from evomerge.merging.output.choice import ChoiceFusion
from evomerge.merging.output.errors import FusionMetricError
from evomerge.merging.output.extraction import ExtractionFusion
from evomerge.merging.output.items import write_items
from evomerge.merging.output.merge import OutputMerge
from evomerge.merging.output.mixture import MixtureFusion


@dataclass(frozen=True)
class Fused:
    """The answer of an output merge.

    Attributes:
        text: what it says, in the format of its data set.
        probabilities: of the options of a choice; empty otherwise.
        silent: names of kept experts that gave no answer; the others' weights stood in.
    """

    text: str
    probabilities: tuple[float, ...] = ()
    silent: tuple[str, ...] = ()


def fused(
    merge: OutputMerge,
    experts: Sequence[ApiExpert],
    example: Example,
    given: Sequence[Given],
    task: Task,
) -> Fused:
    """The fused answer to one example, by the functions that the search scored candidates with.

    Args:
        experts: in the order of the merge; those that it drops need no answers.
        example: the question; its completion is not looked at, its choices are.
        given: by expert, see `evidence.Given`.
        task: how the search asked.

    Raises:
        FusionMetricError: a merge of scored text has no answers in words.
    """
    if merge.kind == "scored_text":
        raise FusionMetricError(merge.metric, "a mixture of token probabilities writes no text")
    heard = [one if keep else () for one, keep in zip(given, merge.kept.tolist(), strict=True)]
    if merge.kind == "choice":
        return _choice(merge, experts, example, heard, task)
    said = [completions(one) for one in heard]
    text = _items(merge, said) if merge.kind == "extraction" else _text(merge, said)
    return Fused(text, silent=_silent(merge, [not samples for samples in said]))


@dataclass(frozen=True)
class Mixed:
    """A text under a mixture of token probabilities.

    Attributes:
        tokens: how they are spelt; none where nobody scored them.
        log_probs: of each under the mixture, nats; None for the first.
        silent: names of kept experts that gave no answer; the others' weights stood in.
    """

    tokens: tuple[str, ...]
    log_probs: tuple[float | None, ...]
    silent: tuple[str, ...] = ()


def mixed(merge: OutputMerge, text: str, given: Sequence[Given], row: int = 0) -> Mixed:
    """The tokens of one text, by the function that the search scored candidates with.

    Args:
        text: not empty; the experts echoed it as they do raw text.
        given: by expert, see `evidence.Given`; those that the merge drops need no answers.
        row: the text's number, for messages.

    Raises:
        TokenisationError: experts cut the text into different tokens.
    """
    heard = [one if keep else () for one, keep in zip(given, merge.kept.tolist(), strict=True)]
    echoes = [next(iter(completions(one)), None) for one in heard]
    tokens, scores = text_scores(merge.experts, echoes, text, row)
    silent = _silent(merge, (~scores.answered).tolist())
    if not tokens:
        return Mixed((), (), silent)
    [log_probs] = MixtureFusion([scores]).log_probs(*_row(merge))
    return Mixed(tokens, (None, *log_probs[0, 1:].tolist()), silent)


def _choice(
    merge: OutputMerge,
    experts: Sequence[ApiExpert],
    example: Example,
    heard: Sequence[Given],
    task: Task,
) -> Fused:
    pairs = zip(experts, heard, strict=True)
    told = [option_log_probs(expert, example, one, task) if one else None for expert, one in pairs]
    nothing = np.full(len(example.choices), np.nan)
    log_probs = np.array([nothing if scores is None else scores for scores in told])
    fusion = ChoiceFusion(log_probs[None], np.array([len(example.choices)]), head=merge.head)
    p = fusion.distributions(*_row(merge))[0, 0]
    answer = example.choices[int(fusion.answers(*_row(merge))[0, 0])]
    return Fused(answer, tuple(p.tolist()), _silent(merge, [scores is None for scores in told]))


def _items(merge: OutputMerge, said: Said) -> str:
    named = item_votes(said)
    alpha, beta = _row(merge)
    # Every extraction merge has a threshold.
    chosen = ExtractionFusion([named.votes]).items(alpha[0], beta[0], merge.threshold or 1.0)
    return write_items([named.spellings[t] for t in chosen[0].tolist()], merge.answer_format)


def _text(merge: OutputMerge, said: Said) -> str:
    named = text_utilities(said, merge.metric)
    chosen = AgreementFusion([named.utilities]).chosen(*_row(merge))
    answer = int(chosen[0, 0])
    return "" if answer < 0 else named.texts[answer]


def _row(merge: OutputMerge) -> tuple[FloatArray, FloatArray]:
    return np.array([merge.alpha], np.float64), np.array([merge.beta], np.float64)


def _silent(merge: OutputMerge, silent: Sequence[bool]) -> tuple[str, ...]:
    rows = zip(merge.experts, merge.kept.tolist(), silent, strict=True)
    return tuple(name for name, kept, without in rows if kept and without)
