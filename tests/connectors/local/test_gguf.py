"""Converting a GGUF once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.support.tiny_gguf import make_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.connectors.local import gguf
from evomerge.connectors.local.base_model import load_base
from evomerge.connectors.local.errors import BaseFolderError
from evomerge.connectors.local.gguf import convert_gguf

TEXT = "Grüße, 12 apples<|endoftext|>"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_gguf(source, tmp_path_factory.mktemp("converted") / "tiny")


def test_the_converted_model_is_the_one_in_the_file(source: Path, folder: Path) -> None:
    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    direct = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32).eval()
    words = AutoTokenizer.from_pretrained(**place)
    base = load_base(folder, threads=1)
    assert base.tokenizer(TEXT).input_ids == words(TEXT).input_ids
    tokens = torch.tensor([words(TEXT).input_ids])
    with torch.no_grad():
        expected = direct(tokens).logits
        found = base.model(tokens).logits
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert base.model.config.rms_norm_eps == 1e-5
    assert base.context_tokens == 128


def test_nothing_is_left_beside_the_folder(folder: Path) -> None:
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_that_is_there_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    assert convert_gguf(source, tmp_path) == tmp_path
    assert (tmp_path / "config.json").read_text() == "mine"


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"\x80\x04pickle")
    with pytest.raises(BaseFolderError, match="not a GGUF file"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_process_that_comes_second_takes_what_the_first_wrote(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiny"

    def other_first(source: Path, staging: Path) -> None:
        (staging / "config.json").write_text("second")
        folder.mkdir()
        (folder / "config.json").write_text("first")

    monkeypatch.setattr(gguf, "_convert", other_first)
    convert_gguf(source, folder)
    assert (folder / "config.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
