"""Merged checkpoints on disk are what the space computes in memory."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.elms import retype, rewrite, shard, tensors_of
from transformers import AutoModelForCausalLM

from evomerge.merging.checkpoint.errors import MismatchError, TensorError, UnequalTensorError
from evomerge.merging.checkpoint.files import content_hash, read_checkpoint
from evomerge.merging.checkpoint.lineage import merged_lineage, read_lineage
from evomerge.merging.checkpoint.merge import merge
from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.optimizers.candidate import Candidate

CANDIDATE = Candidate(np.array([[0.3, 1.0, 0.05]]), np.array([[0.8, -0.6, 1.4]]))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16])
def test_is_what_the_space_computes_to_the_bit(
    seed: Path, elms: list[Path], tmp_path: Path, dtype: torch.dtype | None
) -> None:
    merge(seed, elms, CANDIDATE, tmp_path / "out", dtype=dtype)
    space = CheckpointSpace(read_checkpoint(seed), [read_checkpoint(elm) for elm in elms])
    found = tensors_of(tmp_path / "out")
    targets = {name: torch.empty_like(value) for name, value in found.items()}
    space.fill(CANDIDATE, targets, dtype)
    for name, value in targets.items():
        assert found[name].dtype == (dtype or torch.float32)
        assert torch.equal(found[name], value)


def test_shards_and_ties_are_the_seeds(seed: Path, elms: list[Path], tmp_path: Path) -> None:
    merge(seed, elms, CANDIDATE, tmp_path / "whole")
    parted = shard(shutil.copytree(seed, tmp_path / "seed"), 3)
    # Its content hash has changed with its files: what it is is told by elm.json.
    shutil.copy(elms[0] / "elm.json", parted / "elm.json")
    merge(
        parted,
        [elms[0], shard(shutil.copytree(elms[1], tmp_path / "b"), 2), elms[2]],
        CANDIDATE,
        tmp_path / "out",
    )
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 3
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    wanted = tensors_of(tmp_path / "whole")
    for name, value in model.named_parameters():
        assert torch.equal(value, wanted[name])


def test_groups_of_layers(seed: Path, elms: list[Path], tmp_path: Path) -> None:
    candidate = Candidate(np.ones((2, 3)), np.array([[1.0, 0, 0], [0, 1.0, 0]]))
    merge(seed, elms, candidate, tmp_path / "out")
    first, second, found = (tensors_of(f) for f in (elms[0], elms[1], tmp_path / "out"))
    for name, value in found.items():
        own = first if "layers.0." in name else second
        assert torch.equal(value, own[name])


def test_lineage_tells_parents_and_their_weights(
    seed: Path, elms: list[Path], tmp_path: Path
) -> None:
    members, hashes = [read_lineage(elm) for elm in elms], [content_hash(elm) for elm in elms]
    lineage = merged_lineage(content_hash(seed), members, hashes, [0.5, 0.0, -0.5])
    merge(seed, elms, CANDIDATE, tmp_path / "out", lineage=lineage)
    found = read_lineage(tmp_path / "out")
    assert found == lineage
    assert [(each.content_hash, each.weight) for each in found.parents] == [
        (hashes[0], 0.5),
        (hashes[2], -0.5),
    ]
    assert found.tokens == 202  # of 201 and 203
    merge(
        seed,
        [*elms, tmp_path / "out"],
        Candidate(np.ones((1, 4)), np.eye(4)[3:]),
        tmp_path / "again",
    )


def test_names_a_buffer_that_differs(seed: Path, elms: list[Path], tmp_path: Path) -> None:
    folders = [shutil.copytree(each, tmp_path / each.name) for each in (seed, *elms)]
    for number, folder in enumerate(folders):
        rewrite(folder, tensors_of(folder) | {"places": torch.full((9,), int(number == 2))})
    shutil.copy(elms[0] / "elm.json", folders[0] / "elm.json")
    with pytest.raises(UnequalTensorError, match="'verse' does not fit 'seed': tensor 'places'"):
        merge(folders[0], folders[1:], CANDIDATE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_a_weight_too_large_for_its_dtype(
    seed: Path, elms: list[Path], tmp_path: Path
) -> None:
    huge = Candidate(np.ones((1, 3)), np.array([[1e7, 0, 0]]))
    merge(seed, elms, huge, tmp_path / "wide")
    with pytest.raises(TensorError, match=r"that torch\.float16 does not hold"):
        merge(seed, elms, huge, tmp_path / "out", dtype=torch.float16)
    assert [path.name for path in tmp_path.iterdir()] == ["wide"]


def test_refuses_numbers_where_floats_are(seed: Path, elms: list[Path], tmp_path: Path) -> None:
    whole = retype(shutil.copytree(elms[0], tmp_path / "whole"), torch.int32)
    with pytest.raises(MismatchError, match=r"'whole' does not fit 'seed': tensor .* dtype I32"):
        merge(seed, [whole], Candidate(np.ones((1, 1)), np.ones((1, 1))), tmp_path / "out")
