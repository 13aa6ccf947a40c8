"""Adapted layers against the dense update of each candidate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from evomerge.connectors.local import adapters
from evomerge.connectors.local.adapters import AdaptedLinear, dense_is_cheaper, part
from evomerge.merging.lora.population import Factors, Population

P, K, D_IN, D_OUT, T = 3, 5, 12, 7, 4


def population(shared_A: bool, shared_B: bool, scaled: bool) -> Population:
    draw = torch.Generator().manual_seed(0)
    A = torch.randn(1 if shared_A else P, K, D_IN, generator=draw)
    # As a transposed view, the way some spaces hand it over.
    B = torch.randn(1 if shared_B else P, K, D_OUT, generator=draw).transpose(1, 2)
    scale = torch.randn(P, K, generator=draw) if scaled else None
    return Population(P, {"layer": Factors(A, B, scale)})


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("shared_B", [False, True])
@pytest.mark.parametrize("shared_A", [False, True])
def test_each_candidate_gets_its_own_update(
    shared_A: bool,
    shared_B: bool,
    scaled: bool,
    bias: bool,
    dense: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(adapters, "dense_is_cheaper", lambda **_: dense)
    whole = population(shared_A, shared_B, scaled)
    linear = nn.Linear(D_IN, D_OUT, bias=bias)
    x = torch.randn(P * 2, T, D_IN, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = AdaptedLinear(linear, whole.factors["layer"], P)(x)
        for index in range(P):
            rows = slice(2 * index, 2 * index + 2)
            expected = linear(x[rows]) + x[rows] @ whole.update("layer", index).T
            torch.testing.assert_close(found[rows], expected, rtol=1e-5, atol=1e-5)


def test_a_part_is_the_same_candidates() -> None:
    for shared in (False, True):
        whole = population(shared, False, True)
        some = part(whole, 1, 3)
        assert some.size == 2
        for index in range(2):
            assert torch.equal(some.update("layer", index), whole.update("layer", 1 + index))


@pytest.mark.parametrize("dense", [False, True])
def test_in_half_precision_a_small_update_is_not_rounded_away(
    dense: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapters, "dense_is_cheaper", lambda **_: dense)
    linear = nn.Linear(64, 64, bias=False).to(torch.bfloat16)
    nn.init.constant_(linear.weight, 1.0)
    A, B = torch.full((1, 1, 64), 1e-2), torch.full((1, 64, 1), 1e-2)
    x = torch.zeros(1, 2, 64, dtype=torch.bfloat16)
    # The weights cancel, so that the update alone is left.
    x[..., 0], x[..., 1], x[..., 2] = 1.0, -1.0, 1.0
    x[..., 3] = -1.0
    A[..., 1::2] = 0.0
    with torch.inference_mode():
        y = AdaptedLinear(linear, Factors(A, B, None), 1)(x)
    torch.testing.assert_close(y.float(), torch.full((1, 2, 64), 2e-4), rtol=2e-2, atol=0)


def test_the_road_follows_from_sizes() -> None:
    sizes = {"d_in": 576, "d_out": 576, "merged": True}
    assert not dense_is_cheaper(tokens=64, rank=8, **sizes)
    assert dense_is_cheaper(tokens=512, rank=8, **sizes)
    assert dense_is_cheaper(tokens=4096, rank=80, **sizes)
    assert dense_is_cheaper(tokens=512, rank=4000, **sizes)
    assert not dense_is_cheaper(tokens=4096, rank=80, d_in=576, d_out=576, merged=False)
