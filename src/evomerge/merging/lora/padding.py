"""One rank for all modules of a merged adapter, as servers want it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from evomerge.merging.lora.artifact import MergedAdapter


def padded(adapter: MergedAdapter, ranks: Sequence[int]) -> MergedAdapter:
    """The same update at the least rank in `ranks` that holds it, padded with zeros.

    Args:
        adapter: to be padded.
        ranks: what the server takes, ascending.

    Raises:
        ValueError: the adapter's rank is above all of them.
    """
    fitting = [rank for rank in ranks if rank >= adapter.rank]
    if not fitting:
        raise ValueError(f"ranks={list(ranks)!r}: none holds an adapter of rank {adapter.rank}")
    return MergedAdapter(
        {module: _padded(a, b, fitting[0]) for module, (a, b) in adapter.modules.items()}
    )


def _padded(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (r, d_in) and B (d_out, r) at `rank`."""
    missing = rank - a.shape[0]
    return nn.functional.pad(a, (0, 0, 0, missing)), nn.functional.pad(b, (0, missing))
