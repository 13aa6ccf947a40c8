"""Ids with a prefix that says what they name."""

from __future__ import annotations

import secrets

EXPERT = "ex"
POOL = "pool"
DATASET = "ds"
MERGE_JOB = "mj"
FOREST_JOB = "fj"
SESSION = "ses"
FOREST = "forest"
ELM = "elm"


def new_id(prefix: str) -> str:
    """A fresh id of 96 random bits, such as mj_1f0c...."""
    return f"{prefix}_{secrets.token_hex(12)}"
