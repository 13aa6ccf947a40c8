"""What to know of a merged adapter's rank before it is served."""

from __future__ import annotations

from evomerge.connectors.vllm import RANKS


def remark(rank: int | None) -> str | None:
    """What stands in the way of serving an adapter of this rank with vLLM; None if nothing does.

    vLLM reserves room for one of a few ranks (its --max-lora-rank, by default 16) and refuses what
    is above it; other servers want the very rank.
    """
    if rank is None or rank in RANKS:
        return None
    taken = ", ".join(map(str, RANKS))
    held = next((one for one in RANKS if one > rank), None)
    below = max(one for one in RANKS if one < rank)
    said = f"The merged adapter has rank {rank}, which is not one of vLLM's ({taken}): "
    if held is None:
        return f"{said}no vLLM serves it. output.rank: {below} or less compresses it."
    return f"{said}it needs --max-lora-rank {held} or more there, or output.rank: {below} here."
