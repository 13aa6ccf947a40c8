"""Full checkpoints: tensor by tensor, names, dtypes and ties kept."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.merging.checkpoint.errors import CheckpointError
from evomerge.merging.errors import DiskFullError
from evomerge.merging.lora import checkpoint
from evomerge.merging.lora.adapter import LoraAdapter
from evomerge.merging.lora.artifact import MergedAdapter, merged_adapter
from evomerge.merging.lora.pool import stack_adapters
from evomerge.merging.lora.space import LoraSpace
from evomerge.optimizers.candidate import Candidate

QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def merged(adapters: list[LoraAdapter]) -> MergedAdapter:
    candidate = Candidate(np.full((1, 4), 0.8), np.array([[0.8, -0.6, 0.5, 0.3]]))
    return merged_adapter(LoraSpace(stack_adapters(adapters), "exact"), candidate)


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(base, tmp_path / "base")


def retype(folder: Path, dtype: torch.dtype) -> None:
    file = folder / "model.safetensors"
    save_file({k: v.to(dtype) for k, v in load_file(file).items()}, file, {"format": "pt"})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_adds_the_update_and_changes_nothing_else(
    copy: Path, tmp_path: Path, merged: MergedAdapter, dtype: torch.dtype
) -> None:
    retype(copy, dtype)
    merged.merge_into_checkpoint(copy, tmp_path / "out")
    before, after = (load_file(f / "model.safetensors") for f in (copy, tmp_path / "out"))
    assert list(before) == list(after)
    updates = merged.population()
    for name, weight in before.items():
        module = name.removesuffix(".weight")
        expected = weight
        if module in updates.factors:
            expected = (weight.float() + updates.update(module, 0)).to(dtype)
            assert not torch.equal(expected, weight)
        assert torch.equal(after[name], expected)


def test_loads_with_its_ties_and_its_tokenizer(
    base: Path, tmp_path: Path, merged: MergedAdapter
) -> None:
    merged.merge_into_checkpoint(base, tmp_path / "out")
    assert {p.name for p in base.iterdir()} == {p.name for p in (tmp_path / "out").iterdir()}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_keeps_shards(copy: Path, tmp_path: Path, merged: MergedAdapter) -> None:
    whole = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(whole)
    shards = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for shard, inside in shards.items():
        save_file({name: whole[name] for name in inside}, copy / shard)
    index = {"weight_map": {name: shard for shard, inside in shards.items() for name in inside}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))

    merged.merge_into_checkpoint(copy, tmp_path / "out")

    for shard, inside in shards.items():
        assert set(load_file(tmp_path / "out" / shard)) == set(inside)
    after = {k: v for shard in shards for k, v in load_file(tmp_path / "out" / shard).items()}
    update = merged.population().update(QUERY, 0)
    torch.testing.assert_close(after[f"{QUERY}.weight"], whole[f"{QUERY}.weight"] + update)


def test_leaves_code_and_pickles_behind(copy: Path, tmp_path: Path, merged: MergedAdapter) -> None:
    for name in ("modeling_x.py", "pytorch_model.bin", "other.safetensors"):
        (copy / name).write_bytes(b"x")
    merged.merge_into_checkpoint(copy, tmp_path / "out")
    assert not {"modeling_x.py", "pytorch_model.bin", "other.safetensors"} & {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_names_a_module_without_a_weight_of_its_own(copy: Path, tmp_path: Path) -> None:
    """The base ties lm_head to the embedding: adding to it would change both."""
    merged = MergedAdapter({"lm_head": (torch.ones(1, 32), torch.ones(257, 1))})
    with pytest.raises(CheckpointError, match="no weight of its own for 'lm_head'"):
        merged.merge_into_checkpoint(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_a_weight_of_another_shape(copy: Path, tmp_path: Path) -> None:
    merged = MergedAdapter({QUERY: (torch.ones(1, 31), torch.ones(32, 1))})
    with pytest.raises(CheckpointError, match=r"q_proj.weight is \[32, 32\], the update"):
        merged.merge_into_checkpoint(copy, tmp_path / "out")


def test_names_a_weight_that_is_no_float(copy: Path, tmp_path: Path, merged: MergedAdapter) -> None:
    retype(copy, torch.int8)
    with pytest.raises(CheckpointError, match=r"weight is of dtype I8"):
        merged.merge_into_checkpoint(copy, tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02" * 50])
def test_names_a_base_that_cannot_be_read(
    copy: Path, tmp_path: Path, merged: MergedAdapter, content: bytes
) -> None:
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        merged.merge_into_checkpoint(copy, tmp_path / "out")


@pytest.mark.parametrize(
    "index", ["{", "{}", '{"weight_map": {"x": "../base/model.safetensors"}}', "[]"]
)
def test_names_an_index_that_is_none(
    copy: Path, tmp_path: Path, merged: MergedAdapter, index: str
) -> None:
    (copy / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        merged.merge_into_checkpoint(copy, tmp_path / "out")


def test_names_a_folder_without_weights(copy: Path, tmp_path: Path, merged: MergedAdapter) -> None:
    (copy / "model.safetensors").rename(copy / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"neither model\.safetensors"):
        merged.merge_into_checkpoint(copy, tmp_path / "out")


def test_a_full_disk_leaves_nothing(
    copy: Path, tmp_path: Path, merged: MergedAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "_merged", full)
    with pytest.raises(DiskFullError, match="No space left"):
        merged.merge_into_checkpoint(copy, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [copy]
