"""Named sets of search parameters, filled in under the fields that a spec gives."""

from __future__ import annotations

from typing import Any, Literal

Preset = Literal["default", "paper"]

# Evo-Merging's released recipe: 20 candidates a generation, 400 then 800 evaluations. Scoring
# each expert alone is ours, so there it serves the baseline and nothing else.
_PAPER: dict[str, Any] = {
    "population": 20,
    "stages": ["denoising", "scaling"],
    "probe_competes": False,
    "denoising": {"evaluations": 400, "sigma": 0.05, "l1": 0.05, "start": 1.0},
    "scaling": {"evaluations": 800, "sigma": 0.05, "l1": 0.05, "start": "uniform"},
}

# Chosen by `benchmarks/search_defaults.py`, on targets that no result is reported of.
_DEFAULT: dict[str, Any] = {
    "top_k": 16,
    "stages": ["scaling", "denoising"],
    "patience": 12,
    "denoising": {"evaluations": 100, "sigma": 0.1, "l1": 0.01, "start": 1.0},
    "scaling": {"evaluations": 300, "sigma": 0.1, "l1": 0.01, "start": "best_few"},
}

METHOD_PRESETS: dict[Preset, dict[str, Any]] = {"default": _DEFAULT, "paper": _PAPER}


def filled(given: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """`given` with the fields that it lacks taken from `preset`, nested objects alike."""
    merged = dict(preset)
    for key, value in given.items():
        below = preset.get(key)
        both = isinstance(value, dict) and isinstance(below, dict)
        merged[key] = filled(value, below) if both else value  # type: ignore[arg-type]
    return merged
