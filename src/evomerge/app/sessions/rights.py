"""Who asks, and what they may."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rights:
    """What comes with an API key.

    Attributes:
        caller: a short digest of the key; empty where the service has no keys.
        everything: whether routes beside the session protocol may be called.
        evaluations: that sessions score for it, ever; None for any number.
        materialize: whether it may have adapters written, and learn where.
    """

    caller: str = ""
    everything: bool = True
    evaluations: int | None = None
    materialize: bool = True
