"""A finished merge answers as the search scored it, from the answers of its experts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given as examples_of
from hypothesis import settings
from hypothesis import strategies as st
from tests.support.outputs import ALTERNATIVES, CHAT, ECHOING, echoed, expert, labelled, said

from evomerge.connectors.output.evidence import Given, fusion_of
from evomerge.connectors.output.fused import fused
from evomerge.connectors.output.task import Task
from evomerge.connectors.question import Token
from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import metric_losses
from evomerge.evaluation.objective import FloatArray
from evomerge.merging.output.errors import FusionMetricError
from evomerge.merging.output.fusion import Fusion, fusion_kind
from evomerge.merging.output.merge import OutputMerge

NAMES = ("ann", "bob", "eve")
TYPES = ("person", "place")
WORDS = ("Rome", "Ann", "Bob", "the old bridge", "Paris, France")


def merge_of(
    fusion: Fusion, task: Task, alpha: FloatArray, beta: FloatArray, **fields: object
) -> OutputMerge:
    thresholds = fusion.fit(alpha[None], beta[None], task.metric)
    return OutputMerge(
        kind=task.kind,
        metric=task.metric,
        experts=NAMES,
        alpha=tuple(alpha.tolist()),
        beta=tuple(beta.tolist()),
        threshold=None if thresholds is None else float(thresholds[0]),
        **fields,  # type: ignore[arg-type]
    )


def random_weights(random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    alpha = random.choice([0.0, 0.3, 0.6, 1.0], 3, p=[0.1, 0.2, 0.2, 0.5])
    return alpha, random.choice([-0.7, 0.0, 0.4, 1.0], 3, p=[0.2, 0.1, 0.3, 0.4])


def losses_of_answers(
    task: Task,
    rows: Sequence[Example],
    given: Sequence[Sequence[Given]],
    merge: OutputMerge,
    experts: Sequence[object],
) -> FloatArray:
    """The metric's own loss of what the merge says, question by question."""
    answers = [
        fused(merge, experts, row, [one[x] for one in given], task)  # type: ignore[arg-type]
        for x, row in enumerate(rows)
    ]
    return metric_losses(task.metric, [answer.text for answer in answers], rows)


def items(random: np.random.Generator, most: int = 5) -> str:
    chosen = [
        f"{random.choice(TYPES)}: {random.choice(WORDS)}" for _ in range(random.integers(0, most))
    ]
    return "; ".join(chosen) or "None"


@pytest.mark.parametrize("metric", ["item_f1", "item_precision", "item_recall"])
@pytest.mark.parametrize("joint", ["; ", "\n"])
@settings(deadline=None, max_examples=60)
@examples_of(seed=st.integers(0, 1 << 32))
def test_losses_of_items_are_the_metric_of_the_written_answer(
    metric: str, joint: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    task = Task(fusion_kind("completion", metric), metric, samples=2)
    experts = [expert(name) for name in NAMES]
    rows = [Example(f"q{x}", items(random).replace("; ", joint), row=x) for x in range(4)]
    given = [
        [
            [said(items(random), items(random).upper())] if random.random() < 0.8 else [None]
            for _ in rows
        ]
        for _ in experts
    ]
    alpha, beta = random_weights(random)
    fusion = fusion_of(experts, rows, given, task)
    style = "semicolons" if joint == "; " else "lines"
    merge = merge_of(fusion, task, alpha, beta, answer_format=style)
    np.testing.assert_allclose(
        losses_of_answers(task, rows, given, merge, experts),
        fusion.losses(alpha[None], beta[None], metric)[0],
        atol=1e-12,
    )


@pytest.mark.parametrize("metric", ["exact_match", "token_f1", "rouge_l", "chrf"])
@settings(deadline=None, max_examples=30)
@examples_of(seed=st.integers(0, 1 << 32))
def test_losses_of_texts_are_the_metric_of_the_chosen_answer(metric: str, seed: int) -> None:
    random = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(random.choice(["red", "fox", "runs", "far"], random.integers(1, 4)))

    task = Task(fusion_kind("completion", metric), metric, samples=2)
    experts = [expert(name) for name in NAMES]
    rows = [Example(f"q{x}", text(), row=x) for x in range(3)]
    given = [
        [[said(f" {text()}\n", text())] if random.random() < 0.8 else [None] for _ in rows]
        for _ in experts
    ]
    alpha, beta = random_weights(random)
    fusion = fusion_of(experts, rows, given, task)
    merge = merge_of(fusion, task, alpha, beta)
    np.testing.assert_allclose(
        losses_of_answers(task, rows, given, merge, experts),
        fusion.losses(alpha[None], beta[None], metric)[0],
        atol=1e-12,
    )


CHOICES = ("yes", "no", "maybe so")


@settings(deadline=None, max_examples=60)
@examples_of(seed=st.integers(0, 1 << 32))
def test_losses_of_choices_are_the_metric_of_the_answered_option(seed: int) -> None:
    random = np.random.default_rng(seed)
    task = Task(fusion_kind("choice", "choice_accuracy"), "choice_accuracy")
    experts = [expert("ann", ECHOING), expert("bob", ALTERNATIVES), expert("eve", CHAT)]
    rows = [Example(f"q{x}?", str(random.choice(CHOICES)), CHOICES, row=x) for x in range(4)]

    def echo(row: Example) -> Given:
        return [echoed(*([(row.prompt, None), (f" {c}", -random.exponential(3))] for c in CHOICES))]

    def letter() -> Given:
        p = random.dirichlet(np.ones(4))
        return [labelled(Token("A", None, tuple(zip("ABCX", np.log(p).tolist(), strict=True))))]

    given = [
        [echo(row) for row in rows],
        [letter() for _ in rows],
        [[said(str(random.choice(CHOICES)))] if random.random() < 0.7 else [None] for _ in rows],
    ]
    alpha, beta = random_weights(random)
    fusion = fusion_of(experts, rows, given, task)
    merge = merge_of(fusion, task, alpha, beta)
    np.testing.assert_array_equal(
        losses_of_answers(task, rows, given, merge, experts),
        fusion.losses(alpha[None], beta[None], "choice_accuracy")[0],
    )
    answer = fused(merge, experts, rows[0], [one[0] for one in given], task)
    truth = CHOICES.index(rows[0].completion)
    assert sum(answer.probabilities) == pytest.approx(1)
    assert -np.log(answer.probabilities[truth]) == pytest.approx(
        fusion.losses(alpha[None], beta[None], "cross_entropy")[0, 0]
    )


def three(kind: str, metric: str, **fields: object) -> OutputMerge:
    threshold = 0.5 if kind == "extraction" else None
    return OutputMerge(
        kind,
        metric,
        NAMES,
        (1.0, 1.0, 0.01),
        (0.5, 0.5, 1.0),
        threshold,
        **fields,  # type: ignore[arg-type]
    )


def test_silent_experts_are_named_and_the_rest_answers() -> None:
    task = Task("extraction", "item_f1")
    experts = [expert(name) for name in NAMES]
    question = Example("Who?", "")
    both = [[said("person: Ann; place: Rome")], [said("person: Ann")], []]
    merge = three("extraction", "item_f1")
    whole = fused(merge, experts, question, both, task)
    assert (whole.text, whole.silent) == ("person: Ann; place: Rome", ())
    alone = fused(merge, experts, question, [[None], both[1], []], task)
    assert (alone.text, alone.silent) == ("person: Ann", ("ann",))
    nobody = fused(merge, experts, question, [[None], [None], []], task)
    assert (nobody.text, nobody.silent) == ("None", ("ann", "bob"))


def test_a_dropped_expert_is_neither_heard_nor_missed() -> None:
    task = Task("free_text", "token_f1")
    experts = [expert(name) for name in NAMES]
    given = [[said("red fox")], [said("red fox")], [said("blue whale")]]
    merge = three("free_text", "token_f1")
    heard = fused(merge, experts, Example("q", ""), given, task)
    assert heard == fused(merge, experts, Example("q", ""), [*given[:2], []], task)
    assert (heard.text, heard.silent) == ("red fox", ())
    silent = fused(merge, experts, Example("q", ""), [[], [None], []], task)
    assert (silent.text, silent.silent) == ("", ("ann", "bob"))


def test_choices_without_any_answer_are_a_guess() -> None:
    task = Task("choice", "cross_entropy")
    experts = [expert(name) for name in NAMES]
    answer = fused(
        three("choice", "cross_entropy"), experts, Example("q", "yes", CHOICES), [[None]] * 3, task
    )
    assert answer.probabilities == pytest.approx([1 / 3] * 3)
    assert (answer.text, answer.silent) == ("yes", ("ann", "bob"))


def test_a_mixture_writes_nothing() -> None:
    with pytest.raises(FusionMetricError, match="cross_entropy"):
        fused(
            three("scored_text", "cross_entropy"),
            [],
            Example("q", "a"),
            [],
            Task("scored_text", "x"),
        )


def test_a_task_is_read_back_as_it_was_stored() -> None:
    task = Task("choice", "cross_entropy", samples=3, choice_method="first_token")
    assert Task.from_json(task.to_json()) == task
    assert Task.from_json({**task.to_json(), "of another version": 1}) == task
    assert Task.from_json(task.to_json()) != replace(task, samples=4)
