"""Answers as evidence: the arrays that merging/output fuses.

`Given` is what one expert answered about one example: an answer or None for each question of
`questions(expert, example, task)`, in that order. What is missing or unusable makes the expert have
no answer to that example; it is never an error, for one silent expert must not end a job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.output.labels import labels, option_of
from evomerge.connectors.output.logprobs import label_scores, option_scores, vote_scores
from evomerge.connectors.output.questions import scored_part
from evomerge.connectors.output.task import Task, choice_method
from evomerge.connectors.output.tokens import token_scores
from evomerge.connectors.output.words import Said, item_votes, text_utilities
from evomerge.connectors.question import Answer, Completion
from evomerge.evaluation.example import Example
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.agreement import AgreementFusion
from evomerge.merging.output.choice import HEAD, ChoiceFusion
from evomerge.merging.output.extraction import ExtractionFusion
from evomerge.merging.output.fusion import Fusion
from evomerge.merging.output.mixture import MixtureFusion

Given: TypeAlias = Sequence[Answer | None]


def fusion_of(
    experts: Sequence[ApiExpert],
    examples: Sequence[Example],
    given: Sequence[Sequence[Given]],
    task: Task,
    *,
    head: float = HEAD,
) -> Fusion:
    """The fusion of a task's answers, with the true answers of the examples.

    Args:
        given: by expert and then by example.
        head: of choices, see `merging.output.choice`.

    Raises:
        TokenisationError: experts of different tokenizers score a text.
        MetricError, MissingLibraryError: the task's metric cannot compare texts.
    """
    match task.kind:
        case "choice":
            return choice_fusion(experts, examples, given, task, head=head)
        case "extraction":
            rows = [said(given, x) for x in range(len(examples))]
            pairs = zip(rows, examples, strict=True)
            return ExtractionFusion([item_votes(row, example).votes for row, example in pairs])
        case "free_text":
            rows = [said(given, x) for x in range(len(examples))]
            pairs = zip(rows, examples, strict=True)
            return AgreementFusion(
                [
                    text_utilities(row, task.metric, example, task.reported).utilities
                    for row, example in pairs
                ]
            )
        case "scored_text":
            return _mixture_fusion(experts, examples, given, task)


def choice_fusion(
    experts: Sequence[ApiExpert],
    examples: Sequence[Example],
    given: Sequence[Sequence[Given]],
    task: Task,
    *,
    head: float = HEAD,
) -> ChoiceFusion:
    """The fusion of choice answers, with the true options.

    Args:
        given: by expert and then by example.
    """
    options = np.array([len(example.choices) for example in examples])
    log_probs = np.full((len(examples), len(experts), options.max()), np.nan)
    for i, expert in enumerate(experts):
        for x, example in enumerate(examples):
            scores = option_log_probs(expert, example, given[i][x], task)
            if scores is not None:
                log_probs[x, i, : len(scores)] = scores
    truth = np.array([example.answer for example in examples])
    return ChoiceFusion(log_probs, options, truth, head=head)


def option_log_probs(
    expert: ApiExpert, example: Example, given: Given, task: Task
) -> FloatArray | None:
    """log p(c | x) of an example's options up to an offset, (C,) float64; None: no answer.

    An answer that was to bring log-probabilities of labels and did not counts by its words.
    """
    said = completions(given)
    method = choice_method(expert, task, len(example.choices))
    if method == "prompt_logprobs":
        parts = [scored_part(example, task, choice) for choice in example.choices]
        return option_scores(said, parts)
    scores = None
    if method == "first_token" and said:
        scores = label_scores(said[0], labels(example.choices))
    if scores is not None:
        return scores
    votes = [option_of(one.text, example) for one in said]
    return vote_scores(votes, len(example.choices), task.smoothing)


def _mixture_fusion(
    experts: Sequence[ApiExpert],
    examples: Sequence[Example],
    given: Sequence[Sequence[Given]],
    task: Task,
) -> MixtureFusion:
    names = [expert.name for expert in experts]
    rows = []
    for x, example in enumerate(examples):
        echoes = [next(iter(completions(one[x])), None) for one in given]
        rows.append(token_scores(names, echoes, scored_part(example, task), example.row))
    return MixtureFusion(rows)


def said(given: Sequence[Sequence[Given]], row: int) -> Said:
    """What each expert said about one example."""
    return [completions(one[row]) for one in given]


def completions(given: Given) -> list[Completion]:
    """All completions of an expert's answers to an example, but for those that were refused."""
    return [
        completion
        for answer in given
        if answer is not None
        for completion in answer.completions
        if completion.finish != "content_filter"
    ]
