"""What happens before an endpoint is even looked for: keys, and limits of size.

Both stand here and not in dependencies, because a body is read before dependencies run.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evomerge.app.api.errors import envelope

PROTECTED = "/v1"
# What multipart's boundaries and small fields may add to the files themselves.
_FORM_OVERHEAD = 64 * 1024


class ApiKeys:
    """Asks for one of the keys on every route below /v1; without keys it lets all pass."""

    def __init__(self, app: ASGIApp, keys: Sequence[SecretStr]) -> None:
        self.app = app
        self._hashes = [_hash(key.get_secret_value()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._hashes and _is_protected(scope):
            caller = self._caller(Headers(scope=scope).get("authorization", ""))
            if caller is None:
                response = envelope(
                    401,
                    "give a valid API key as Authorization: Bearer KEY",
                    "authentication_error",
                    "invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await response(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    def _caller(self, header: str) -> str | None:
        """A short name of the key presented; None where it is not one of ours."""
        scheme, _, key = header.partition(" ")
        presented = _hash(key.strip())
        # Every hash is compared, and in constant time, so that time tells nothing.
        matches = [hmac.compare_digest(presented, known) for known in self._hashes]
        return presented[:16] if scheme.lower() == "bearer" and any(matches) else None


class BodyLimit:
    """Refuses bodies that are too large: by their announced size at once, else as they come in.

    What a client announces is not believed: the bytes are counted whatever it said.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_upload_bytes: int) -> None:
        self.app = app
        self._max_body = max_body_bytes
        self._max_upload = max_upload_bytes + _FORM_OVERHEAD

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        is_form = headers.get("content-type", "").startswith("multipart/form-data")
        limit = self._max_upload if is_form else self._max_body
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            message = f"the body has {announced} bytes, the limit is {limit}"
            response = envelope(
                413,
                message,
                "invalid_request_error",
                "body_too_large",
                # What is still on its way is not to be read.
                headers={"Connection": "close"},
            )
            await response(scope, receive, send)
            return
        await self.app(scope, _counting(receive, limit), send)


def _counting(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                raise HTTPException(
                    413,
                    f"the body is larger than the limit of {limit} bytes",
                    {"Connection": "close"},
                )
        return message

    return counted


def _is_protected(scope: Scope) -> bool:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == PROTECTED or path.startswith(PROTECTED + "/")


def _hash(key: str) -> str:
    return sha256(key.encode()).hexdigest()
