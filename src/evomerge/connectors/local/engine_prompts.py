"""What a request asks, as the model's tokens: the way the rows of a dataset are encoded."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.engine_text import Speller
from evomerge.connectors.local.rows import RowEncoder
from evomerge.evaluation.example import Example
from evomerge.evaluation.reading.shapes import rendered

Prompt = str | tuple[int, ...]


class Prompter:
    """Encodes prompts and chats for one base. Safe to call from any thread."""

    def __init__(self, base: BaseModel) -> None:
        # The engine refuses what is too long, by the answer's length too.
        self._encoder = RowEncoder(base.tokenizer, sys.maxsize)
        self._speller = Speller(base.tokenizer)
        self._template = bool(base.tokenizer.chat_template)

    def tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """A text or token ids; where it is empty, the token that begins a text."""
        if isinstance(prompt, str) or not prompt:
            return self._encoder.asked(Example(str(prompt or ""), ""), 0)
        return prompt

    def text(self, prompt: Prompt) -> str:
        """A prompt as text."""
        return prompt if isinstance(prompt, str) else self._speller.decode(prompt, special=True)

    def chat(
        self, messages: Sequence[tuple[str, str]], *, template: bool, suffix: str
    ) -> tuple[int, ...]:
        """A chat up to where the assistant answers.

        Args:
            template: whether to use the tokenizer's chat template where it has one. Else a single
                user's turn is the bare prompt, and several turns are `Role: content` lines.
            suffix: behind a chat that goes without a template.
        """
        plain = messages[0][1] if _is_prompt(messages) else rendered(tuple(messages))
        if template and self._template:
            return self._encoder.asked(Example(plain, "", messages=tuple(messages)), 0)
        return self.tokens(plain + suffix)


def _is_prompt(messages: Sequence[tuple[str, str]]) -> bool:
    return len(messages) == 1 and messages[0][0] == "user"
