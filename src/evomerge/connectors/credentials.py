"""Named secrets, each bound to hosts; looked up for one request and never kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from evomerge.connectors.errors import CredentialError
from evomerge.connectors.hosts import Origin, matches

HIDDEN = "[credential]"


@dataclass(frozen=True)
class Credential:
    """Where a secret is, and to whom it may be sent. Never the secret itself.

    Attributes:
        hosts: patterns as in `HostPolicy`.
        env: the environment variable that holds it; or
        file: the file that holds it (read anew for each request, so that it may be renewed).
    """

    hosts: tuple[str, ...]
    env: str | None = None
    file: Path | None = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.file is None):
            raise ValueError("a credential names either env or file")
        if not self.hosts:
            raise ValueError("a credential names the hosts that may see it")


@dataclass(frozen=True)
class Credentials:
    """All that are configured, by name."""

    named: Mapping[str, Credential] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def secret(self, name: str, origin: Origin, who: str) -> str:
        """The secret, for one request to this origin; `who` is named in errors.

        Raises:
            CredentialError: unknown, not bound to this host, unset, or not fit for a header.
        """

        def refused(reason: str) -> CredentialError:
            return CredentialError(who, f"credential {name!r} {reason}", requests=0)

        credential = self.named.get(name)
        if credential is None:
            raise refused(f"is not configured; {origin.authority!r} wants it")
        if not any(matches(pattern, origin) for pattern in credential.hosts):
            raise refused(f"may not be sent to host {origin.authority!r}")
        secret, failure = "", None
        try:
            secret = self._read(credential)
        except (OSError, UnicodeDecodeError) as error:
            failure = type(error).__name__
        if failure is not None:
            # Not inside the except: that error holds the path, or the very bytes.
            raise refused(f"cannot be read for {origin.authority!r}: {failure}")
        if not secret:
            raise refused(f"is not set; {origin.authority!r} wants it")
        if not (secret.isascii() and secret.isprintable()):
            raise refused(f"is not printable ASCII; {origin.authority!r} wants it")
        return secret

    def secrets(self) -> tuple[str, ...]:
        """Every secret that is set now, to be taken out of texts with `scrubbed`."""
        found = []
        for credential in self.named.values():
            try:
                found.append(self._read(credential))
            except (OSError, UnicodeDecodeError):
                continue
        return tuple(filter(None, found))

    def _read(self, credential: Credential) -> str:
        if credential.file is not None:
            return credential.file.read_text("utf-8").strip()
        return self.environment.get(credential.env or "", "").strip()


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """`text` without the secrets, as they are and as JSON and URLs spell them; longest first."""
    spelled = {
        form
        for secret in filter(None, secrets)
        for form in (secret, json.dumps(secret)[1:-1], quote(secret), quote(secret, safe=""))
    }
    for form in sorted(spelled, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text
