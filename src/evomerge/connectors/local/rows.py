"""Examples as token rows: what the model is given, and which tokens are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from evomerge.connectors.local.errors import ContextOverflowError, EmptyAnswerError
from evomerge.evaluation.example import Example


@dataclass(frozen=True)
class Row:
    """One sequence of token ids.

    Attributes:
        tokens: the whole sequence.
        start: index of the first token that is scored, at least 1; all after it are scored too.
    """

    tokens: tuple[int, ...]
    start: int

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return len(self.tokens) - self.start


class RowEncoder:
    """Makes rows of examples.

    A row is prompt, answer prefix, completion, end-of-text; the prompt is given, the rest is
    scored. Chat rows go through the tokenizer's chat template where it has one, and then take
    no answer prefix, for the template ends where the answer begins. Raw text takes neither
    prefix nor end-of-text, and every token of it is scored. A row that would begin with a
    scored token gets the tokenizer's beginning-of-text (or else its end-of-text) before it.

    Args:
        tokenizer: the base's tokenizer.
        limit: tokens that the model's context holds.
        context_tokens: cut longer prompts from the left to this many tokens in all; None: a
            row above `limit` is an error.
        answer_prefix: written between prompt and completion.
        end_of_text: whether the answer ends with end-of-text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        limit: int,
        *,
        context_tokens: int | None = None,
        answer_prefix: str = " ",
        end_of_text: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._limit = limit if context_tokens is None else min(limit, context_tokens)
        self._cut = context_tokens is not None
        self._prefix = answer_prefix
        self._end = [tokenizer.eos_token_id] if end_of_text else []
        first: Any = tokenizer("").input_ids[:1]
        self._first: list[int] = list(first) if first == [tokenizer.bos_token_id] else []

    def scored(self, example: Example, answer: str | None = None) -> Row:
        """The row that scores `answer` (the example's completion by default).

        Raises:
            ContextOverflowError: it does not fit, not even with the prompt cut if that is asked.
            EmptyAnswerError: there is no token to score.
        """
        text = example.completion if answer is None else answer
        if example.kind == "text":
            return self._raw_text(example, text)
        said = self._ids(self._answer_prefix(example) + text) + self._end
        given = self._fit(self._given(example), len(said), example.row)
        return _row(given, said, example.row)

    def asked(self, example: Example, answer_tokens: int) -> tuple[int, ...]:
        """The prompt alone, with room left for `answer_tokens`, for generation.

        Raises:
            ContextOverflowError: prompt and answer do not fit together.
        """
        return tuple(self._fit(self._given(example), answer_tokens, example.row))

    def _given(self, example: Example) -> list[int]:
        if example.messages and self._tokenizer.chat_template:
            messages = [{"role": role, "content": text} for role, text in example.messages]
            ids = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=False
            )
            return list(ids)
        return (self._first + self._ids(example.prompt)) or self._context_token()

    def _raw_text(self, example: Example, text: str) -> Row:
        given, said = self._context_token(), self._ids(text)
        if len(given) + len(said) > self._limit:
            if not self._cut:
                raise ContextOverflowError(example.row, len(given) + len(said), self._limit)
            said = said[len(given) - self._limit :]
        return _row(given, said, example.row)

    def _fit(self, given: list[int], answer: int, row: int) -> list[int]:
        """The prompt, cut from the left (after beginning-of-text) where it is too long."""
        over = len(given) + answer - self._limit
        if over <= 0:
            return given
        if not self._cut:
            raise ContextOverflowError(row, len(given) + answer, self._limit)
        kept = given[len(self._first) + over :]
        if not kept:
            raise ContextOverflowError(row, answer + 1, self._limit, "the answer alone")
        return given[: len(self._first)] + kept

    def _answer_prefix(self, example: Example) -> str:
        return "" if example.messages and self._tokenizer.chat_template else self._prefix

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def _context_token(self) -> list[int]:
        """What stands before a text that has nothing before it."""
        if self._first:
            return self._first
        bos, eos = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        return [eos if bos is None else bos]


def _row(given: list[int], said: list[int], number: int) -> Row:
    if not said:
        raise EmptyAnswerError(number)
    return Row(tuple(given + said), len(given))
