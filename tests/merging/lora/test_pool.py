"""Stacking, padding and layer groups."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.tiny import make_adapter, make_base

from evomerge.merging.errors import LayerGroupsError
from evomerge.merging.lora.adapter import LoraAdapter
from evomerge.merging.lora.errors import PoolError
from evomerge.merging.lora.pool import stack_adapters, stack_folders


def test_stacks_every_factor_and_pads_with_zeros(adapters: list[LoraAdapter]) -> None:
    pool = stack_adapters(adapters)
    assert pool.names == ("a", "b", "c", "d")
    assert len(pool.modules) == 21
    for module in pool.modules:
        for expert, adapter in enumerate(adapters):
            a, b = adapter.modules.get(
                module.name, (torch.zeros(0, module.d_in), torch.zeros(module.d_out, 0))
            )
            rank = a.shape[0]
            assert module.ranks[expert] == rank
            assert module.sizes[expert] == a.numel()
            assert torch.equal(module.A[expert, :rank], a)
            assert torch.equal(module.Bt[expert, :rank], b.T)
            assert not module.A[expert, rank:].any()
            assert not module.Bt[expert, rank:].any()


def test_folders_and_adapters_give_the_same_pool(
    folders: list[Path], adapters: list[LoraAdapter]
) -> None:
    read, given = stack_folders(folders, groups=2), stack_adapters(adapters, groups=2)
    assert read.names == given.names
    assert read.content_hashes == given.content_hashes
    assert read.nbytes == given.nbytes
    for one, other in zip(read.modules, given.modules, strict=True):
        assert (one.name, one.group, one.ranks) == (other.name, other.group, other.ranks)
        assert torch.equal(one.A, other.A)
        assert torch.equal(one.Bt, other.Bt)


def test_dtype_is_by_argument(adapters: list[LoraAdapter]) -> None:
    pool = stack_adapters(adapters, dtype=torch.bfloat16)
    assert {module.A.dtype for module in pool.modules} == {torch.bfloat16}


def test_experts_do_not_cost_twice_in_memory(adapters: list[LoraAdapter]) -> None:
    """All A in one buffer, all B in another: views of what was reserved once."""
    pool = stack_adapters(adapters)
    storages = {tensor.untyped_storage().data_ptr() for m in pool.modules for tensor in (m.A, m.Bt)}
    assert len(storages) == 2


@pytest.mark.parametrize("groups", [0, 4])
def test_refuses_groups_without_layers(adapters: list[LoraAdapter], groups: int) -> None:
    with pytest.raises(LayerGroupsError, match=f"groups={groups}"):
        stack_adapters(adapters, groups=groups)


def test_refuses_an_empty_pool() -> None:
    with pytest.raises(PoolError, match="at least one"):
        stack_folders([])


def test_refuses_adapters_of_two_bases(tmp_path: Path, folders: list[Path]) -> None:
    other = make_base(tmp_path / "other", hidden=16, heads=2, kv_heads=2)
    stranger = make_adapter(tmp_path / "stranger", other)
    with pytest.raises(PoolError, match=r"'stranger'.*shares one base"):
        stack_folders([folders[0], stranger])
