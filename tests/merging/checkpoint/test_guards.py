"""What must not be averaged is refused, and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.support.elms import make_elm, retype, rewrite, set_config, shard, tensors_of
from tests.support.tiny import make_base

from evomerge.merging.checkpoint.errors import (
    ArchitectureError,
    CheckpointError,
    KeysError,
    LineageError,
    LineageFileError,
    MismatchError,
    TensorError,
    TensorShapeError,
    VocabularyError,
)
from evomerge.merging.checkpoint.files import content_hash, read_checkpoint
from evomerge.merging.checkpoint.guards import check_mergeable, check_same_model

NORM = "model.norm.weight"


def held(*folders: Path) -> str:
    return check_mergeable([read_checkpoint(folder) for folder in folders])


def reshaped(folder: Path) -> None:
    rewrite(folder, tensors_of(folder) | {NORM: torch.ones(31)})


def without(folder: Path) -> None:
    rewrite(folder, {k: v for k, v in tensors_of(folder).items() if k != NORM})


def with_more(folder: Path) -> None:
    rewrite(folder, tensors_of(folder) | {"extra": torch.ones(2)})


def of_numbers(folder: Path) -> None:
    rewrite(folder, tensors_of(folder) | {NORM: torch.ones(32, dtype=torch.int64)})


def of_other_heads(folder: Path) -> None:
    """Every tensor keeps its shape."""
    set_config(folder, num_attention_heads=8, num_key_value_heads=4, head_dim=4)


def of_more_words(folder: Path) -> None:
    set_config(folder, vocab_size=300)


def of_other_tokens(folder: Path) -> None:
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    file.write_text(json.dumps(content))


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("change", "kind", "key"),
    [
        (reshaped, TensorShapeError, rf"tensor '{NORM}' is of shape \[31\], not \[32\]"),
        (without, KeysError, f"tensor '{NORM}' is missing"),
        (with_more, KeysError, "tensor 'extra' is there in it alone"),
        (of_numbers, TensorShapeError, f"tensor '{NORM}' is of dtype I64, not F32"),
        (of_other_heads, ArchitectureError, r"config\.json head_dim is 4, not 8"),
        (of_more_words, VocabularyError, r"config\.json vocab_size is 300, not 257"),
        (of_other_tokens, VocabularyError, "tokenizer, model:"),
        (without_tokenizer, VocabularyError, "tokenizer, added_tokens:"),
    ],
)
def test_names_the_elm_and_the_key(
    elms: list[Path],
    tmp_path: Path,
    change: Callable[[Path], None],
    kind: type[MismatchError],
    key: str,
) -> None:
    odd = shutil.copytree(elms[1], tmp_path / "odd")
    change(odd)
    with pytest.raises(kind, match=f"ELM 'odd' does not fit 'law': {key}"):
        held(elms[0], elms[2], odd)


def test_takes_what_is_one_forest(seed: Path, elms: list[Path], tmp_path: Path) -> None:
    """However its files are cut, in whatever float dtype, and with what loading left in them."""
    other = shutil.copytree(elms[1], tmp_path / "other")
    retype(shard(other, 2), torch.bfloat16)
    set_config(other, use_cache=False, transformers_version="4.0", dtype="bfloat16")
    tokens = json.loads((other / "tokenizer.json").read_text())
    tokens["truncation"] = {"max_length": 8}
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    assert held(seed, elms[0], other) == content_hash(seed)


def test_a_seed_is_of_its_own_lineage(seed: Path, elms: list[Path], tmp_path: Path) -> None:
    grandchild = make_elm(tmp_path / "grandchild", elms[0], 7)
    assert held(grandchild, seed, *elms) == content_hash(seed)
    stranger = make_base(tmp_path / "stranger", seed=3)
    with pytest.raises(LineageError, match="ELM 'stranger' does not fit 'seed': lineage is of"):
        held(seed, stranger)
    check_same_model([read_checkpoint(seed), read_checkpoint(stranger)])


def test_a_copy_that_lost_its_lineage_is_a_stranger(elms: list[Path], tmp_path: Path) -> None:
    lost = shutil.copytree(elms[1], tmp_path / "lost")
    (lost / "elm.json").unlink()
    with pytest.raises(LineageError, match="'lost' does not fit 'law'"):
        held(elms[0], lost)


def test_names_a_float_too_coarse(elms: list[Path], tmp_path: Path) -> None:
    coarse = retype(shutil.copytree(elms[1], tmp_path / "coarse"), torch.float8_e4m3fn)
    with pytest.raises(TensorError, match="dtype F8_E4M3, too coarse"):
        held(elms[0], coarse)


@pytest.mark.parametrize(
    ("file", "content", "kind"),
    [
        ("tokenizer.json", "{", CheckpointError),
        ("tokenizer.json", "[]", CheckpointError),
        ("config.json", "{", CheckpointError),
        ("elm.json", "{", LineageFileError),
    ],
)
def test_names_a_damaged_file(
    elms: list[Path], tmp_path: Path, file: str, content: str, kind: type[CheckpointError]
) -> None:
    damaged = shutil.copytree(elms[1], tmp_path / "damaged")
    (damaged / file).write_text(content)
    with pytest.raises(kind, match=file):
        held(elms[0], damaged)
