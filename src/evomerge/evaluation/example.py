"""One row of a dataset, in the one form that every space and metric understands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DatasetKind = Literal["completion", "choice", "text"]


@dataclass(frozen=True)
class Example:
    """A question with its true answer.

    Attributes:
        prompt: what the model is given; empty for raw text.
        completion: what it should say (for a choice row: the right choice; for raw text: the
            text itself).
        choices: the options of a choice row in order; empty otherwise.
        messages: (role, content) pairs before the answer, for a chat row; empty otherwise. The
            prompt is then their plain rendering, for models without a chat template.
        row: number of the row in the uploaded file, from 1, for messages to people.
    """

    prompt: str
    completion: str
    choices: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    row: int = 0

    @property
    def answer(self) -> int | None:
        """Index of the right choice; None where there are no choices."""
        return self.choices.index(self.completion) if self.choices else None

    @property
    def kind(self) -> DatasetKind:
        """What sort of row this is; all rows of a dataset are of one kind."""
        if self.choices:
            return "choice"
        return "completion" if self.prompt else "text"
