"""Labels of options: how they are listed for a model, and how its answer is read."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import replace

from evomerge.evaluation.example import Example
from evomerge.evaluation.metrics import score_of

LETTERS = string.ascii_uppercase
# What tokenizers write for a blank before a word.
_BLANKS = " \t\n\r▁ĠĊ"
_AROUND = string.punctuation + _BLANKS + "“”‘’"
_SAID = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+is)?\s*:?\s*[(\[\"'*]*\s*(\w+)", re.IGNORECASE
)


def labels(choices: Sequence[str]) -> tuple[str, ...]:
    """A short name for each option.

    Letters; numbers from 1 where there are more options than letters; the options themselves
    where each is a single letter or digit already, which a second label would only confuse.
    """
    if own_labels(choices):
        return tuple(choice.strip() for choice in choices)
    if len(choices) <= len(LETTERS):
        return tuple(LETTERS[: len(choices)])
    return tuple(str(number) for number in range(1, len(choices) + 1))


def own_labels(choices: Sequence[str]) -> bool:
    """Whether the options are labels themselves."""
    bare = [choice.strip() for choice in choices]
    short = all(len(one) == 1 and one.isalnum() for one in bare)
    return short and len({one.casefold() for one in bare}) == len(bare)


def listing(choices: Sequence[str]) -> str:
    """What is written behind a question so that a label is its answer."""
    names = labels(choices)
    if own_labels(choices):
        return f"\n\nAnswer with one of {', '.join(names)} and nothing else.\nAnswer:"
    lines = "\n".join(f"{name}. {choice}" for name, choice in zip(names, choices, strict=True))
    what = "letter" if names[0] == LETTERS[0] else "number"
    return f"\n\n{lines}\n\nAnswer with the {what} of the right option and nothing else.\nAnswer:"


def label_of(token: str, names: Sequence[str]) -> int | None:
    """Which label a token is, whatever case it has and whatever blanks and marks are around it."""
    bare = token.strip(_AROUND).casefold()
    return next((i for i, name in enumerate(names) if name.casefold() == bare), None)


def option_of(answer: str, example: Example) -> int | None:
    """Which option an answer in words names; None where that cannot be told.

    An answer that begins with an option's words names it (the longest, see `choice_accuracy`);
    else its first word may be a label, or the word behind "answer", "option" or "choice".
    """
    begins = score_of("choice_accuracy")
    for index, choice in enumerate(example.choices):
        if begins(answer, replace(example, completion=choice)):
            return index
    names = labels(example.choices)
    words = answer.split()
    if words and (first := label_of(words[0], names)) is not None:
        # "A dog barked" begins with a word of the language, "A" and "A. Rome" with a label.
        marked = words[0].strip(_BLANKS) != words[0].strip(_AROUND)
        if marked or len(words) == 1 or words[0].casefold() not in ("a", "i"):
            return first
    said = _SAID.search(answer)
    return None if said is None else label_of(said.group(1), names)
