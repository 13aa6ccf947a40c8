"""Why a model gave no answer, one tree."""

from __future__ import annotations

from evomerge.connectors.base import ConnectorError


class AskError(ConnectorError):
    """No answer to a question.

    Attributes:
        model: who was asked, as base URL and model name.
        requests: HTTP requests that were sent for it.
        charged: those of them that were answered, or after which the provider may have worked all
            the same.
    """

    def __init__(self, model: str, reason: str, *, requests: int = 1, charged: int = 0) -> None:
        super().__init__(f"{model}: {reason}")
        self.model = model
        self.reason = reason
        self.requests = requests
        self.charged = charged


class HostRefusedError(AskError):
    """The address is not on the allow-list, resolves to a refused network, or redirects away."""


class CredentialError(AskError):
    """401 or 403, or the credential is unknown, unset, or not bound to this host."""


class UnknownModelError(AskError):
    """404: no such model or no such route there."""


class QuestionRefusedError(AskError):
    """This question cannot be answered (a parameter or the content is refused), others may be.

    Attributes:
        param: the parameter that the provider names, if it names one.
    """

    def __init__(
        self,
        model: str,
        reason: str,
        *,
        param: str | None = None,
        requests: int = 1,
        charged: int = 0,
    ) -> None:
        super().__init__(model, reason, requests=requests, charged=charged)
        self.param = param


class TooLongError(QuestionRefusedError):
    """413, or 400 because the context is exceeded."""


class OverloadedError(AskError):
    """429 or 529, and still so after every retry."""


class ProviderDownError(AskError):
    """5xx, a lost or silent connection, and still so after every retry."""


class UnusableAnswerError(AskError):
    """An answer that is not what the protocol promises, and still so after every retry."""
