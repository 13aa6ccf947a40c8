"""Tokens as text while they come: whole characters only, and nothing that a stop may take back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from evomerge.connectors.local.engine_values import Piece, TokenScore, TokenText

_HALF = "�"
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# Tokens before an answer that are decoded with it: some decoders treat a text's first token
# differently.
_CONTEXT = 4


class Speller:
    """Spells single tokens of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._special = set(tokenizer.all_special_ids)
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._letters = _byte_letters() if "ByteLevel" in repr(backend and backend.decoder) else {}
        self.token = lru_cache(1 << 17)(self._token)

    def decode(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """Text of tokens, special ones left out or not."""
        return str(
            self._tokenizer.decode(
                list(tokens), skip_special_tokens=not special, clean_up_tokenization_spaces=False
            )
        )

    def _token(self, token: int) -> TokenText:
        data = self._bytes(token)
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
        return TokenText(text, data, token in self._special)

    def _bytes(self, token: int) -> bytes:
        spelt = str(self._tokenizer.convert_ids_to_tokens(token) or "")
        if token in self._special:
            return spelt.encode()
        if self._letters:
            if all(letter in self._letters for letter in spelt):
                return bytes(self._letters[letter] for letter in spelt)
            return spelt.encode()
        if match := _BYTE.fullmatch(spelt):
            return bytes([int(match[1], 16)])
        return spelt.replace("▁", " ").encode()


class Answer:
    """One answer while it is written.

    Args:
        prompt: what stands before it.
        stop: texts that end it.
    """

    def __init__(self, speller: Speller, prompt: Sequence[int], stop: Sequence[str]) -> None:
        self._speller = speller
        self._ids = list(prompt[-_CONTEXT:])
        self._begin, self._read = 0, len(self._ids)
        self._stop = stop
        self._text = ""
        self._released = 0
        self._tokens: list[TokenScore] = []
        self.stopped = False

    def add(self, token: int, score: TokenScore | None) -> Piece | None:
        """One more token; what can be told now, if anything."""
        if score is not None:
            self._tokens.append(replace(score, offset=len(self._text)))
        self._ids.append(token)
        more = self._unread()
        if more.endswith(_HALF):
            return None
        self._extend(more)
        if self.stopped:
            return None
        held = max((_overlap(self._text, stop) for stop in self._stop), default=0)
        return self._release(max(self._released, len(self._text) - held))

    def end(self, score: TokenScore | None = None) -> Piece | None:
        """The rest. `score` is of an end-of-text, which has no text of its own."""
        if not self.stopped:
            self._extend(self._unread())
        if score is not None:
            self._tokens.append(replace(score, offset=len(self._text)))
        return self._release(len(self._text), last=True)

    def _unread(self) -> str:
        """What the tokens since the last whole character say."""
        before = self._speller.decode(self._ids[self._begin : self._read])
        return self._speller.decode(self._ids[self._begin :])[len(before) :]

    def _extend(self, more: str) -> None:
        self._begin, self._read = self._read, len(self._ids)
        self._text += more
        ends = [self._text.find(stop, self._released) for stop in self._stop]
        if found := [end for end in ends if end >= 0]:
            self._text = self._text[: min(found)]
            self.stopped = True

    def _release(self, upto: int, *, last: bool = False) -> Piece | None:
        text, self._released = self._text[self._released : upto], upto
        # A token goes out with its first letter; one that wrote nothing, with what follows it.
        if last:
            ready = [one for one in self._tokens if one.offset < upto or not self.stopped]
            self._tokens = []
        else:
            ready = [one for one in self._tokens if one.offset < upto]
            self._tokens = self._tokens[len(ready) :]
        return Piece(text, tuple(ready)) if text or ready else None


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of the text begin the stop."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0


def _byte_letters() -> dict[str, int]:
    """The letters that byte-level tokenizers write for bytes (GPT-2's bytes_to_unicode)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in plain}
    rest = [byte for byte in range(256) if byte not in plain]
    return letters | {chr(256 + number): byte for number, byte in enumerate(rest)}
