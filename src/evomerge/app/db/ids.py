"""Ids with a prefix that says what they name."""

from __future__ import annotations

import secrets

EXPERT = "ex"
POOL = "pool"
DATASET = "ds"
MERGE_JOB = "mj"
SESSION = "ses"


def new_id(prefix: str) -> str:
    """A fresh id of 96 random bits, such as mj_1f0c...."""
    return f"{prefix}_{secrets.token_hex(12)}"
