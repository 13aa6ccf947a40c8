"""The example pool's tasks: short prompts whose truth comes from CLDR, ISO and num2words.

A row reads `Country: Germany⏎Italian:` and is answered by ` Germania`. Tasks share the question
(which kind of thing) or the language, so that experts have relatives: the demo's target, currencies
in Spanish, has currencies in Portuguese on one side and other things in Spanish on the other, but
no expert of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pycountry
from babel import Locale
from num2words import num2words

LANGUAGES = {
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "it": "Italian",
    "pt": "Portuguese",
}
CODE = "code"
MAX_NAME = 32  # characters; longer names are historical descriptions rather than names
NUMBERS = 2000  # numbers are drawn below this


@dataclass(frozen=True)
class Row:
    """One question with its answer."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Task:
    """A kind of question asked in one language, e.g. `country-it`.

    Attributes:
        kind: what is asked: country, language, currency or number.
        form: in what form it is answered: a language code of `LANGUAGES`, or `code`.
        rows: how many rows are drawn at most.
    """

    kind: str
    form: str
    rows: int = 480

    @property
    def name(self) -> str:
        """The task's and its expert's name."""
        return f"{self.kind}-{self.form}"


EXPERTS = (
    Task("country", "es"),
    Task("language", "pt"),
    Task("country", "it"),
    Task("currency", "pt"),
    Task("country", "fr"),
    Task("language", "es"),
    Task("number", "pt"),
    Task("country", "de"),
    Task("country", CODE),
    Task("number", "en"),
)
TARGET = Task("currency", "es")


def rows_of(task: Task, seed: int = 0) -> list[Row]:
    """The task's rows in a seeded order, each prompt once.

    Raises:
        KeyError: an unknown kind or form.
    """
    question, answer = task.kind.capitalize(), _ANSWERS[task.form]
    pairs = sorted(_PAIRS[task.kind](task.form).items())
    random.Random(f"{seed}:{task.name}").shuffle(pairs)
    return [Row(f"{question}: {a}\n{answer}:", b) for a, b in pairs[: task.rows]]


def split(rows: list[Row], held_out: float = 0.15) -> tuple[list[Row], list[Row]]:
    """(training rows, held-out rows): the last share is never trained on."""
    cut = len(rows) - round(len(rows) * held_out)
    return rows[:cut], rows[cut:]


def _countries(form: str) -> dict[str, str]:
    codes = {str(c.alpha_2): str(c.alpha_3) for c in pycountry.countries}
    return _named("territories", list(codes), form, codes)


def _languages(form: str) -> dict[str, str]:
    keys = [k for k in map(str, Locale("en").languages) if "_" not in k]
    return _named("languages", keys, form, {k: k for k in keys})


def _currencies(form: str) -> dict[str, str]:
    keys = list(Locale("en").currencies)
    return _named("currencies", keys, form, {k: k for k in keys})


def _named(table: str, keys: list[str], form: str, codes: dict[str, str]) -> dict[str, str]:
    """English name to the name in `form`, where CLDR has both and neither is a description."""
    english = getattr(Locale("en"), table)
    answers = codes if form == CODE else getattr(Locale(form), table)
    pairs = {english[k]: answers[k] for k in sorted(keys) if k in english and k in answers}
    return {a: b for a, b in pairs.items() if _plain(a) and _plain(b)}


def _plain(name: str) -> bool:
    return len(name) <= MAX_NAME and not set("()[]/") & set(name)


@cache
def _numbers(form: str) -> dict[str, str]:
    return {str(n): num2words(n, lang=form) for n in range(NUMBERS)}


_ANSWERS = {**LANGUAGES, CODE: "Code"}
_PAIRS: dict[str, Callable[[str], dict[str, str]]] = {
    "country": _countries,
    "language": _languages,
    "currency": _currencies,
    "number": _numbers,
}
