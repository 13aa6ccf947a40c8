"""What happens before an endpoint is even looked for: keys, and limits of size.

Both stand here and not in dependencies, because a body is read before dependencies run.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from hashlib import sha256

from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from evomerge.app.api.errors import envelope
from evomerge.app.errors import ForbiddenError
from evomerge.app.sessions.rights import Rights
from evomerge.app.settings import KeySetting

PROTECTED = ("/v1", "/tokenize")
# What keys of scope sessions may call.
SHARED = ("/v1/presets", "/v1/sessions")
# Characters of a key's hash that stand for its caller.
_SHOWN = 16
# What multipart's boundaries and small fields may add to the files themselves.
_FORM_OVERHEAD = 64 * 1024


class ApiKeys:
    """Asks for one of the keys on /tokenize and every route below /v1; without keys all pass.

    Named keys come with rights: one for sessions alone is refused everything else.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[SecretStr],
        named: Mapping[str, KeySetting] | None = None,
    ) -> None:
        self.app = app
        self._rights: dict[str, Rights] = {}
        for key in keys:
            known = _hash(key.get_secret_value())
            self._rights[known] = Rights(known[:_SHOWN])
        for one in (named or {}).values():
            known = _hash(one.key.get_secret_value())
            everything = one.scope == "all"
            self._rights[known] = Rights(
                known[:_SHOWN], everything, one.evaluations, everything or one.materialize
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._rights and _is_below(scope, PROTECTED):
            rights = self._presented(Headers(scope=scope).get("authorization", ""))
            if rights is None:
                response = envelope(
                    401,
                    "give a valid API key as Authorization: Bearer KEY",
                    "authentication_error",
                    "invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )
                await response(scope, receive, send)
                return
            if not rights.everything and not _is_below(scope, SHARED):
                message = f"this key may call {' and '.join(SHARED)} only"
                response = envelope(403, message, ForbiddenError.type, ForbiddenError.code)
                await response(scope, receive, send)
                return
            scope.setdefault("state", {}).update(caller=rights.caller, rights=rights)
        await self.app(scope, receive, send)

    def _presented(self, header: str) -> Rights | None:
        """What the key presented may do; None where it is not one of ours."""
        scheme, _, key = header.partition(" ")
        presented = _hash(key.strip())
        # Every hash is compared, and in constant time, so that time tells nothing.
        matches = [
            rights
            for known, rights in self._rights.items()
            if hmac.compare_digest(presented, known)
        ]
        return matches[0] if scheme.lower() == "bearer" and matches else None


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


def _is_below(scope: Scope, roots: Sequence[str]) -> bool:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return any(path == root or path.startswith(root + "/") for root in roots)


def _hash(key: str) -> str:
    return sha256(key.encode()).hexdigest()
