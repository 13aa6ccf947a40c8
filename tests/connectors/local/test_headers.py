"""What a model folder says without being loaded."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.tiny import make_base

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.errors import BaseFolderError
from evomerge.connectors.local.headers import content_hash, linear_shapes, tensor_headers


def test_shapes_are_those_of_the_loaded_model(base: BaseModel, base_folder: Path) -> None:
    shapes = linear_shapes(base_folder)
    assert shapes == base.linear_shapes()
    assert shapes["model.layers.1.mlp.down_proj"] == (32, 48)


def test_needs_no_torch() -> None:
    code = "import sys, evomerge.connectors.local.headers; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_hash_is_of_the_content_alone(base_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder, tmp_path / "another name")
    assert content_hash(copy) == content_hash(base_folder)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert content_hash(copy) != content_hash(base_folder)
    assert content_hash(make_base(tmp_path / "other", seed=4)) != content_hash(base_folder)


def test_pickled_weights_are_refused_by_name(base_folder: Path, tmp_path: Path) -> None:
    shutil.copy(base_folder / "config.json", tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(BaseFolderError, match=r"pytorch_model\.bin is a pickle"):
        linear_shapes(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseFolderError, match=r"no config\.json"):
        linear_shapes(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BaseFolderError, match=r"must be \*\.safetensors"):
        linear_shapes(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x04pickle", b"\x05" + bytes(7) + b"{oops", b"\x02" + bytes(7) + b"[]"],
)
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(BaseFolderError, match="header"):
        tensor_headers(file)
