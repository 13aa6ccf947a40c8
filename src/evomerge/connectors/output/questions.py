"""Examples as questions to experts: each expert is asked about each example once."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.output.errors import ExpertUnableError
from evomerge.connectors.output.labels import listing
from evomerge.connectors.output.task import Task, check, choice_method
from evomerge.connectors.question import Question, Sampling
from evomerge.evaluation.example import Example

# A label, and room for a model that writes "The answer is (B)".
_LABEL_TOKENS = 8
_SCORED = Sampling(max_tokens=1, temperature=0.0)


@dataclass(frozen=True)
class OutputTokens:
    """Output tokens of a question.

    Attributes:
        most: they cannot be more; what a budget reserves.
        typical: what is to be expected; what a dry run adds up.
    """

    most: int
    typical: int


def questions(expert: ApiExpert, example: Example, task: Task) -> tuple[Question, ...]:
    """What an expert is asked about an example.

    One question; only where several samples are wanted from an API that gives one a request are
    there as many questions as samples.

    Raises:
        ExpertUnableError: the expert's API does not give what the task needs.
    """
    check(expert, task)
    match task.kind:
        case "choice":
            return _choice(expert, example, task)
        case "scored_text":
            return (_echoed(expert, (scored_text(expert, example, task),)),)
        case "extraction" | "free_text":
            sampling = replace(expert.sampling, max_tokens=task.max_tokens)
            return _answers(expert, example, task, "", sampling)


def calls(expert: ApiExpert, example: Example, task: Task) -> int:
    """How many questions `questions` gives: 1, but for samples that are asked one by one."""
    return len(questions(expert, example, task))


def scored_text(expert: ApiExpert, example: Example, task: Task) -> str:
    """The whole text that is echoed to score an example; its scored part stands at the end."""
    return expert.text(example, scored_part(example, task))


def scored_part(example: Example, task: Task, choice: str | None = None) -> str:
    """The part of an echoed text that is scored."""
    answer = example.completion if choice is None else choice
    return answer if example.kind == "text" else task.answer_prefix + answer


def output_tokens(expert: ApiExpert, example: Example, question: Question) -> OutputTokens:
    """Output tokens of one of an example's questions.

    A question that echoes or asks for a label is known exactly or nearly. An answer in words is
    expected to be as long as the true one; from an expert that only continues text, with nothing
    to stop it, as long as it may be.
    """
    most = question.most_output_tokens
    if question.echo or question.sampling.max_tokens == 1:
        return OutputTokens(most, most)
    if question.interface == "completions" and not question.sampling.stop:
        return OutputTokens(most, most)
    if example.kind == "choice":
        each = 2
    else:
        size = len(example.completion.encode())
        each = math.ceil(size / expert.capabilities.bytes_per_token) + 1
    return OutputTokens(most, min(most, each * question.samples))


def _choice(expert: ApiExpert, example: Example, task: Task) -> tuple[Question, ...]:
    match choice_method(expert, task, len(example.choices)):
        case "prompt_logprobs":
            options = (scored_part(example, task, choice) for choice in example.choices)
            return (_echoed(expert, tuple(expert.text(example, option) for option in options)),)
        case "first_token":
            # The most likely token and its rivals are wanted, not a draw.
            asked = _asked(expert, example, listing(example.choices), _SCORED)
            return (replace(asked, alternatives=expert.capabilities.alternatives),)
        case "samples":
            sampling = replace(
                expert.sampling, max_tokens=max(_LABEL_TOKENS, _longest(expert, example))
            )
            return _answers(expert, example, task, listing(example.choices), sampling)


def _longest(expert: ApiExpert, example: Example) -> int:
    """Tokens of the longest option, for a model that writes it out."""
    size = max(len(choice.encode()) for choice in example.choices)
    return math.ceil(size / expert.capabilities.bytes_per_token) + 1


def _echoed(expert: ApiExpert, prompts: tuple[str, ...]) -> Question:
    if not expert.capabilities.prompt_logprobs:
        raise ExpertUnableError(expert.name, "does not give log-probabilities of prompts")
    tokens = 0 if expert.capabilities.zero_tokens else 1
    return Question(
        endpoint=expert.endpoint,
        prompts=prompts,
        sampling=replace(_SCORED, max_tokens=tokens),
        # No rivals are needed, but asking for none is what some servers take for no numbers.
        alternatives=1,
        echo=True,
    )


def _answers(
    expert: ApiExpert, example: Example, task: Task, suffix: str, sampling: Sampling
) -> tuple[Question, ...]:
    """Answers in words, as many as the task wants samples."""
    if task.samples > 1 and not sampling.temperature:
        sampling = replace(sampling, temperature=task.temperature)
    asked = _asked(expert, example, suffix, sampling)
    if task.samples == 1:
        return (asked,)
    if expert.capabilities.samples:
        return (replace(asked, samples=task.samples),)
    return tuple(_draw(asked, number) for number in range(task.samples))


def _draw(question: Question, number: int) -> Question:
    """The same question once more; a fixed seed would draw the same answer again."""
    seed = question.sampling.seed
    sampling = replace(question.sampling, seed=None if seed is None else seed + number)
    return replace(question, sampling=sampling, sample=number)


def _asked(expert: ApiExpert, example: Example, suffix: str, sampling: Sampling) -> Question:
    if expert.capabilities.interface == "chat":
        messages = expert.messages(example, suffix)
        return Question(expert.endpoint, messages=messages, sampling=sampling)
    return Question(expert.endpoint, prompts=(expert.text(example, suffix),), sampling=sampling)
