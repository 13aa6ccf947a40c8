"""What a server's refusal means: from status and body to one of our errors. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.connectors.errors import (
    AskError,
    CredentialError,
    HostRefusedError,
    OverloadedError,
    ProviderDownError,
    QuestionRefusedError,
    TooLongError,
    UnknownModelError,
    UnusableAnswerError,
)

# 424 is how TGI and LoRAX say that generating failed.
TRANSIENT = frozenset({408, 409, 424, 425, 429, 500, 501, 502, 503, 504, 529})
OVERLOADED = frozenset({429, 529})
# Statuses after which the provider may have worked, and charged, all the same; of 5xx all but FREE.
# 200 is an error where an answer was promised.
COSTLY = frozenset({200, 408, 424})
FREE = frozenset({501, 503, 529})
LONG_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large"})
LONG_WORDS = (
    "maximum context length",
    "context length exceeded",
    "context window",
    "exceed context",
    "exceeds the available context",
    "prompt is too long",
    "input is too long",
    "must have less than",
    "tokens + `max_new_tokens` must be",
)
UNPAID_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
# Anthropic's names for what another provider says with a status, where the status is 200.
STATUS_OF = {"overloaded_error": 529, "rate_limit_error": 429, "api_error": 500}
SHOWN = 500


@dataclass(frozen=True)
class Told:
    """A refusal in the server's own words.

    Attributes:
        status: the HTTP status, or the one that the body names inside a 200.
        param: the parameter that it names, if any.
        code: its machine-readable reason, if any.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    @property
    def transient(self) -> bool:
        """Whether asking again may help."""
        return self.status in TRANSIENT and self.code not in UNPAID_CODES

    @property
    def may_have_cost(self) -> bool:
        """Whether the provider may have worked, and charged, all the same."""
        return self.status in COSTLY or (self.status >= 500 and self.status not in FREE)

    @property
    def kind(self) -> type[AskError]:
        """Which of our errors it is."""
        # One return per row of the table in docs/connectors.md.
        if 300 <= self.status < 400:
            return HostRefusedError
        if self.status in (401, 402, 403) or self.code in UNPAID_CODES:
            return CredentialError
        if self.status in OVERLOADED:
            return OverloadedError
        if self.status in TRANSIENT or self.status >= 500:
            return ProviderDownError
        if self.status == 404:
            return UnknownModelError
        if self.status == 413 or self._too_long:
            return TooLongError
        return QuestionRefusedError if self.status >= 400 else UnusableAnswerError

    @property
    def _too_long(self) -> bool:
        words = self.message.lower()
        return self.code in LONG_CODES or any(each in words for each in LONG_WORDS)


def told(status: int, body: bytes) -> Told:
    """What a refusal says, in whichever envelope: OpenAI's, Anthropic's, TGI's, FastAPI's, none."""
    text = body.decode("utf-8", "replace")
    try:
        answer = json.loads(text)
    except ValueError:
        return Told(status, _plain(text) or f"status {status} without a word")
    if not isinstance(answer, dict):
        return Told(status, _plain(text))
    error = answer.get("error")
    if isinstance(error, dict):
        return _enveloped(status, error)
    if isinstance(error, str):
        return Told(status, _plain(error), code=_text(answer.get("error_type")))
    if isinstance(answer.get("message"), str):
        return _enveloped(status, answer)
    if "detail" in answer:
        return _detailed(status, answer["detail"])
    return Told(status, _plain(text))


def inside(answer: Any) -> Told | None:
    """The error that some servers send with a 200; None if there is none."""
    if not isinstance(answer, dict):
        return None
    error = answer.get("error")
    choices = answer.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("error"):
            error = choice["error"]
    if not error:
        return None
    named = error if isinstance(error, dict) else {}
    code = named.get("code")
    if not (isinstance(code, int) and 400 <= code < 600):
        code = None
    status = code or STATUS_OF.get(str(named.get("type")), 200)
    return told(status, json.dumps({"error": error}).encode())


def _enveloped(status: int, error: Mapping[str, Any]) -> Told:
    message = error.get("message")
    words = _plain(message if isinstance(message, str) and message else json.dumps(error))
    code = _text(error.get("code")) or _text(error.get("type"))
    return Told(status, words, _text(error.get("param")), code)


def _detailed(status: int, detail: Any) -> Told:
    """FastAPI: one text, or a list of {loc, msg}."""
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        first = detail[0]
        place = [part for part in first.get("loc") or () if isinstance(part, str)]
        param = place[-1] if place and place[-1] != "body" else None
        words = f"{'.'.join(place)}: {first.get('msg')}"
        return Told(status, _plain(words), param, _text(first.get("type")))
    return Told(status, _plain(detail if isinstance(detail, str) else json.dumps(detail)))


def _plain(text: str) -> str:
    return " ".join(text.split())[:SHOWN]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
