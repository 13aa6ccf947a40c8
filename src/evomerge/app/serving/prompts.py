"""Prompts and chats as plain text, for models whose tokenizer is not here."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.app.serving.errors import BadParameterError
from evomerge.app.serving.protocol import Prompt, Turn
from evomerge.evaluation.reading.shapes import rendered


def text_of(prompt: Prompt) -> str:
    """A prompt that must be text.

    Raises:
        BadParameterError: it is token ids.
    """
    if isinstance(prompt, str):
        return prompt
    raise BadParameterError(
        "prompt: token ids mean nothing here, for the tokenizer is elsewhere; give a text", "prompt"
    )


def is_prompt(messages: Sequence[Turn]) -> bool:
    """Whether a chat is a single user's turn, and so as good as a prompt."""
    return len(messages) == 1 and messages[0][0] == "user"


def plain(messages: Sequence[Turn]) -> str:
    """A chat as text: a single user's turn bare, several turns as `Role: content` lines."""
    return messages[0][1] if is_prompt(messages) else rendered(tuple(messages))
