"""Headers of checkpoints: where every tensor is, and what is refused before it is read."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
from tests.support.elms import shard, tensors_of

from evomerge.merging.checkpoint.errors import CheckpointError, TensorError
from evomerge.merging.checkpoint.files import content_hash, read_checkpoint

WEIGHTS = "model.safetensors"


@pytest.fixture
def copy(seed: Path, tmp_path: Path) -> Path:
    return shutil.copytree(seed, tmp_path / "copy")


@pytest.mark.parametrize("shards", [1, 3])
def test_every_tensor_is_where_it_says(copy: Path, shards: int) -> None:
    tensors = tensors_of(copy)
    checkpoint = read_checkpoint(shard(copy, shards), "mine")
    assert checkpoint.name == "mine"
    assert len(checkpoint.shards) == shards
    assert checkpoint.tensors.keys() == tensors.keys()
    for name, entry in checkpoint.tensors.items():
        content = (copy / entry.shard).read_bytes()[entry.offset : entry.offset + entry.nbytes]
        assert content == tensors[name].numpy().tobytes()
        assert entry.shape == tuple(tensors[name].shape)
    assert checkpoint.nbytes == sum(value.nbytes for value in tensors.values())


def test_companions_are_what_another_checkpoint_takes_over(elms: list[Path]) -> None:
    names = [path.name for path in read_checkpoint(elms[0]).companions()]
    assert names == [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_hash_is_of_the_model_and_not_of_its_lineage(elms: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(elms[0], tmp_path / "copy")
    assert read_checkpoint(copy).content_hash == content_hash(elms[0])
    (copy / "elm.json").unlink()
    assert content_hash(copy) == content_hash(elms[0])
    (copy / "config.json").write_text("{}")
    assert content_hash(copy) != content_hash(elms[0])


@pytest.mark.parametrize(
    "index", ["{", "{}", '{"weight_map": {"x": "../seed/model.safetensors"}}', "[]"]
)
def test_names_an_index_that_is_none(copy: Path, index: str) -> None:
    (copy / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        read_checkpoint(copy)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02" * 50, b"\2" + bytes(7) + b"[]"])
def test_names_a_header_that_is_none(copy: Path, content: bytes) -> None:
    (copy / WEIGHTS).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: has (no|a damaged)"):
        read_checkpoint(copy)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"dtype": "F3", "shape": [1], "data_offsets": [0, 4]}, "tensor 'x' is of dtype F3"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "tensor 'x' is not where"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [8, 12]}, "tensor 'x' is not where"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}, "tensor 'x' is not where"),
        ({"dtype": "F32", "shape": [1]}, "damaged header: 'x'"),
        ({"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}, "damaged header: 'x'"),
        ("F32", "damaged header: 'x'"),
    ],
)
def test_names_a_tensor_that_cannot_be(copy: Path, entry: object, reason: str) -> None:
    header = json.dumps({"x": entry}).encode()
    (copy / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises((CheckpointError, TensorError), match=reason):
        read_checkpoint(copy)


def test_names_a_tensor_that_is_there_twice(copy: Path) -> None:
    shard(copy, 2)
    first, second = sorted(copy.glob("*.safetensors"))
    shutil.copy(first, second)
    with pytest.raises(TensorError, match="is in two shards"):
        read_checkpoint(copy)
