"""The method of every merging rule, with a small grid."""

from __future__ import annotations

from typing import Any

RULES: dict[str, dict[str, Any]] = {
    "task_arithmetic": {},
    "ties": {"election": "frequency"},
    "dare_linear": {},
    "dare_ties": {},
    "della": {"epsilon": 0.2},
    "breadcrumbs": {"gamma": 0.05},
    "emr": {"scales": [0.5, 1.0]},
}


def rule_method(name: str, **fields: Any) -> dict[str, Any]:
    """A method of two densities and two scales, or of two scales."""
    dense = {} if name in ("task_arithmetic", "emr") else {"densities": [0.6, 1.0]}
    return {"name": name, "scales": [0.3, 1.0], **dense, **RULES[name], **fields}
