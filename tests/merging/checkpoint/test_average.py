"""Averages of checkpoints: streamed, exact, and loadable as any checkpoint."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.elms import make_elm, retype, rewrite, shard, tensors_of
from tests.support.tiny import make_base
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.merging.checkpoint import writing
from evomerge.merging.checkpoint.average import average
from evomerge.merging.checkpoint.errors import (
    CheckpointError,
    LineageError,
    TensorError,
    UnequalTensorError,
)
from evomerge.merging.checkpoint.files import content_hash
from evomerge.merging.checkpoint.lineage import Lineage, read_lineage
from evomerge.merging.errors import DiskFullError
from evomerge.merging.forest.errors import WeightsError

QUERY = "model.layers.0.self_attn.q_proj.weight"


def by_hand(
    folders: Sequence[Path], weights: Sequence[float], dtype: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The definition, with everything in memory and in float64."""
    all_tensors = [tensors_of(folder) for folder in folders]
    return {
        name: sum(
            (w * own[name].double() for w, own in zip(weights, all_tensors, strict=True)),
            torch.zeros((), dtype=torch.float64),
        ).to(dtype or value.dtype)
        for name, value in all_tensors[0].items()
    }


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Up to the last bit, which fused products may turn where a sum lies between two values."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        last_bit = torch.finfo(value.dtype).eps
        torch.testing.assert_close(found[name], value, rtol=last_bit, atol=1e-14)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(st.integers(0, 100), min_size=3, max_size=3).filter(any))
def test_is_the_weighted_sum_of_every_tensor(
    elms: list[Path], tmp_path: Path, parts: list[int]
) -> None:
    weights = [part / sum(parts) for part in parts]
    average(elms, weights, tmp_path / "out")
    assert_equal(tensors_of(tmp_path / "out"), by_hand(elms, weights))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
def test_keeps_the_dtype_of_the_first(
    elms: list[Path], tmp_path: Path, stored: torch.dtype
) -> None:
    first = retype(shutil.copytree(elms[0], tmp_path / "first"), stored)
    average([first, *elms[1:]], [0.5, 0.3, 0.2], tmp_path / "out")
    assert_equal(tensors_of(tmp_path / "out"), by_hand([first, *elms[1:]], [0.5, 0.3, 0.2]))


def test_writes_another_dtype_and_says_so(elms: list[Path], tmp_path: Path) -> None:
    average(elms, [0.5, 0.3, 0.2], tmp_path / "out", dtype=torch.bfloat16)
    assert_equal(tensors_of(tmp_path / "out"), by_hand(elms, [0.5, 0.3, 0.2], torch.bfloat16))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16


def test_loads_with_its_ties_and_its_tokenizer(elms: list[Path], tmp_path: Path) -> None:
    average(elms, np.full(3, 1 / 3), tmp_path / "out")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    wanted = by_hand(elms, [1 / 3] * 3)
    assert_equal(dict(model.named_parameters()), wanted)
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("ab").input_ids
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        path.name for path in elms[0].iterdir()
    } - {"elm.json"}


def test_keeps_shards_whatever_those_of_the_others(elms: list[Path], tmp_path: Path) -> None:
    first = shard(shutil.copytree(elms[0], tmp_path / "first"), 3)
    average([first, *elms[1:]], [0.5, 0.25, 0.25], tmp_path / "out", dtype=torch.float16)
    expected = by_hand(elms, [0.5, 0.25, 0.25], torch.float16)
    assert_equal(tensors_of(tmp_path / "out"), expected)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(expected)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in expected.values())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert torch.equal(loaded.get_parameter(QUERY), expected[QUERY])


def test_the_same_bytes_on_any_number_of_threads(
    elms: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=threads: count)
        average(elms, [0.1, 0.2, 0.7], tmp_path / str(threads))
    assert content_hash(tmp_path / "1") == content_hash(tmp_path / "3")


def test_writes_the_lineage_it_is_given(elms: list[Path], tmp_path: Path) -> None:
    lineage = Lineage("s" * 64, tokens=7)
    average(elms, [0.5, 0.5, 0], tmp_path / "out", lineage=lineage)
    assert read_lineage(tmp_path / "out") == lineage


def test_keeps_buffers_that_are_equal(seed: Path, elms: list[Path], tmp_path: Path) -> None:
    folders = [shutil.copytree(elm, tmp_path / elm.name) for elm in elms]
    for folder in folders:
        extra = {"places": torch.arange(9), "on": torch.tensor([True, False])}
        rewrite(folder, tensors_of(folder) | extra)
    average(folders, [0.2, 0.3, 0.5], tmp_path / "out")
    found = tensors_of(tmp_path / "out")
    assert torch.equal(found["places"], torch.arange(9))
    assert found["on"].tolist() == [True, False]


def test_names_a_buffer_that_differs(elms: list[Path], tmp_path: Path) -> None:
    folders = [shutil.copytree(elm, tmp_path / elm.name) for elm in elms]
    for number, folder in enumerate(folders):
        rewrite(folder, tensors_of(folder) | {"places": torch.full((9,), int(number == 2))})
    with pytest.raises(UnequalTensorError, match="'code' does not fit 'law': tensor 'places'"):
        average(folders, [0.2, 0.3, 0.5], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.5], [0.5, 0.3, 0.1], [1.5, -0.5, 0.0]])
def test_refuses_weights_that_are_no_distribution(
    elms: list[Path], tmp_path: Path, weights: list[float]
) -> None:
    with pytest.raises(WeightsError, match="weights="):
        average(elms, weights, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refuses_two_seeds_unless_that_is_what_is_to_be_shown(
    elms: list[Path], tmp_path: Path
) -> None:
    stranger = make_elm(
        tmp_path / "stranger", make_base(tmp_path / "other", seed=9), 4, domain="law"
    )
    with pytest.raises(LineageError, match="'stranger' does not fit 'law': lineage is of seed"):
        average([elms[0], stranger], [0.5, 0.5], tmp_path / "out")
    average([elms[0], stranger], [0.5, 0.5], tmp_path / "out", same_lineage=False)
    assert_equal(tensors_of(tmp_path / "out"), by_hand([elms[0], stranger], [0.5, 0.5]))


def test_names_a_value_that_is_not_finite(elms: list[Path], tmp_path: Path) -> None:
    broken = shutil.copytree(elms[0], tmp_path / "broken")
    tensors = tensors_of(broken)
    tensors[QUERY][3, 4] = torch.inf
    rewrite(broken, tensors)
    with pytest.raises(TensorError, match=f"tensor '{QUERY}' would have values"):
        average([broken, *elms[1:]], [0.2, 0.3, 0.5], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_what_was_there(
    elms: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    average(elms, [1, 0, 0], tmp_path / "out")
    before = content_hash(tmp_path / "out")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing.os, "pwrite", full)
    with pytest.raises(DiskFullError, match="No space left"):
        average(elms, [0, 1, 0], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert content_hash(tmp_path / "out") == before


def test_names_a_file_that_was_cut_short(elms: list[Path], tmp_path: Path) -> None:
    short = shutil.copytree(elms[0], tmp_path / "short")
    os.truncate(short / "model.safetensors", (short / "model.safetensors").stat().st_size - 1)
    with pytest.raises(CheckpointError, match="cut short"):
        average([elms[1], short], [0.5, 0.5], tmp_path / "out")
