"""The best approximation of an update at a lower rank."""

from __future__ import annotations

import torch
from torch import Tensor


def compress(A: Tensor, B: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors of at most `rank` whose product is closest to B @ A (Eckart and Young).

    The product is never formed. With B = Q_b R_b and A^T = Q_a R_a, the singular values of B @ A
    are those of the small core R_b R_a^T, (k, k) at most. Each factor gets the square root of the
    singular values, so that both round equally well.

    Args:
        A: (k, d_in).
        B: (d_out, k).
        rank: at least 1.

    Returns:
        A (r, d_in) and B (d_out, r) in the dtype and on the device of A, with
        r = min(rank, k, d_in, d_out); the very factors given where k <= rank.

    Raises:
        ValueError: rank is below 1.
    """
    if rank < 1:
        raise ValueError(f"rank={rank!r}: must be at least 1")
    if A.shape[0] <= rank:
        return A, B
    # In float64: the core multiplies rounding errors of both, and it is small.
    q_b, r_b = torch.linalg.qr(B.double())
    q_a, r_a = torch.linalg.qr(A.double().T)
    left, values, right = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    roots = values[:rank].sqrt()
    compressed_B = q_b @ (left[:, :rank] * roots)
    compressed_A = (roots[:, None] * right[:rank]) @ q_a.T
    return compressed_A.to(A.dtype), compressed_B.to(A.dtype)


def compress_dense(update: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The same of an update that is no product, by its whole SVD.

    Args:
        update: (d_out, d_in).
        rank: at least 1.

    Returns:
        A (r, d_in) and B (d_out, r) in the dtype of the update, with r = min(rank, d_in, d_out).

    Raises:
        ValueError: rank is below 1.
    """
    if rank < 1:
        raise ValueError(f"rank={rank!r}: must be at least 1")
    left, values, right = torch.linalg.svd(update.double(), full_matrices=False)
    roots = values[:rank].sqrt()
    A, B = roots[:, None] * right[:rank], left[:, :rank] * roots
    return A.to(update.dtype), B.to(update.dtype)
