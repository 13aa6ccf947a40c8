"""Why an API did not answer, in our words: a provider's own may hold anything."""

from __future__ import annotations

from collections.abc import Mapping

from evomerge.connectors.errors import (
    AskError,
    CredentialError,
    HostRefusedError,
    OverloadedError,
    ProviderDownError,
    QuestionRefusedError,
    UnknownModelError,
    UnusableAnswerError,
)

_REASONS: Mapping[type[AskError], str] = {
    HostRefusedError: "its host is not allowed",
    CredentialError: "its credential was refused or is missing",
    UnknownModelError: "its model is not there",
    QuestionRefusedError: "it refused the question",
    OverloadedError: "it is overloaded",
    ProviderDownError: "it cannot be reached",
    UnusableAnswerError: "its answer could not be read",
}


def reason(error: AskError) -> str:
    """What kind of failure it was."""
    return next((words for kind, words in _REASONS.items() if isinstance(error, kind)), "it failed")
