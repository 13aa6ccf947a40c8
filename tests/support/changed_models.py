"""Models whose files are no longer those that their job wrote."""

from __future__ import annotations

from pathlib import Path

from tests.app.api.client import Api, error


async def refuses_changed_weights(api: Api, model: str, folder: Path) -> None:
    """Ask a model, not loaded yet, one byte of whose weights is another; then put it back."""
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    response = await api.post("/v1/completions", {"model": model, "prompt": "a", "max_tokens": 1})
    said = error(response, 503, "model_unavailable", "model")
    assert "its file model.safetensors has changed since the job wrote it" in said
    weights.write_bytes(good)
