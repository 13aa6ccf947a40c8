"""Candidates over ELMs: held against the formula computed with everything in memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.elms import make_elm, retype, tensors_of
from tests.support.tiny import make_base
from torch import Tensor

from evomerge.merging.checkpoint import sparse, tensors
from evomerge.merging.checkpoint.errors import KeysError, LineageError
from evomerge.merging.checkpoint.files import read_checkpoint
from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.merging.errors import CandidateError, LayerGroupsError
from evomerge.merging.layers import layer_groups
from evomerge.merging.lora.sparsify import sparsify
from evomerge.optimizers.candidate import Candidate, base, one_hot, uniform

QUERY = "model.layers.0.self_attn.q_proj.weight"
CANDIDATE = Candidate(np.array([[0.3, 1.0, 0.05]]), np.array([[0.8, -0.6, 1.4]]))
SHARES = st.lists(st.floats(0, 1), min_size=3, max_size=3)
WEIGHTS = st.lists(st.floats(-1.5, 1.5), min_size=3, max_size=3)


def made(folder: Path, elms: Sequence[Path], groups: int = 1) -> CheckpointSpace:
    return CheckpointSpace(read_checkpoint(folder), [read_checkpoint(e) for e in elms], groups)


def filled(
    space: CheckpointSpace,
    candidate: Candidate,
    dtype: torch.dtype | None = None,
    target: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    targets = {
        name: torch.full(entry.shape, torch.nan, dtype=target)
        for name, entry in space.seed.tensors.items()
    }
    space.fill(candidate, targets, dtype)
    return targets


def by_hand(seed: Path, elms: Sequence[Path], candidate: Candidate) -> dict[str, Tensor]:
    """The formula in float64; magnitudes are those of the float32 difference."""
    start, others = tensors_of(seed), [tensors_of(elm) for elm in elms]
    group = layer_groups(start, candidate.groups)
    result = {}
    for name, value in start.items():
        total = value.double()
        for number, own in enumerate(others):
            alpha, beta = (a[group[name], number] for a in (candidate.alpha, candidate.beta))
            kept = sparsify((own[name] - value).float(), float(alpha)) != 0
            total = total + beta * torch.where(kept, own[name].double() - value.double(), 0.0)
        result[name] = total
    return result


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-7, atol=1e-12)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(alpha=SHARES, beta=WEIGHTS)
def test_is_the_seed_plus_signed_sparse_task_vectors(
    seed: Path, elms: list[Path], alpha: list[float], beta: list[float]
) -> None:
    candidate = Candidate(np.array([alpha]), np.array([beta]))
    assert_near(filled(made(seed, elms), candidate), by_hand(seed, elms, candidate))


def test_one_elm_alone_is_that_elm_to_the_bit(seed: Path, elms: list[Path]) -> None:
    space = made(seed, elms)
    for number, elm in enumerate(elms):
        own = tensors_of(elm)
        for name, value in filled(space, one_hot(number, 3)).items():
            assert torch.equal(value, own[name])


def test_no_weight_at_all_is_the_seed_to_the_bit(seed: Path, elms: list[Path]) -> None:
    space = made(seed, elms)
    start = tensors_of(seed)
    again = filled(space, CANDIDATE)
    space.fill_seed(again)
    for found in (filled(space, base(3)), again):
        assert all(torch.equal(value, start[name]) for name, value in found.items())


def test_groups_of_layers_have_weights_of_their_own(seed: Path, elms: list[Path]) -> None:
    candidate = Candidate(
        np.array([[0.4, 1.0, 0.7], [1.0, 0.2, 0.0]]), np.array([[1, -0.5, 0], [0.3, 0.3, 0.9]])
    )
    assert_near(filled(made(seed, elms, 2), candidate), by_hand(seed, elms, candidate))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float64])
def test_any_float_dtype_on_disk(
    seed: Path, elms: list[Path], tmp_path: Path, stored: torch.dtype
) -> None:
    own = retype(shutil.copytree(elms[1], tmp_path / "own"), stored)
    folders = [elms[0], own, elms[2]]
    assert_near(filled(made(seed, folders), CANDIDATE), by_hand(seed, folders, CANDIDATE))


def test_ties_go_to_the_entry_that_comes_first(seed: Path, tmp_path: Path) -> None:
    """Coarse differences, as bfloat16's are, so that most entries have equals."""
    start = retype(shutil.copytree(seed, tmp_path / "start"), torch.bfloat16)
    elm = make_elm(tmp_path / "elm", start, 5, strength=0.002)
    for alpha in (0.01, 0.3, 0.5, 0.77):
        candidate = Candidate(np.array([[alpha]]), np.array([[1.0]]))
        assert_near(filled(made(start, [elm]), candidate), by_hand(start, [elm], candidate))


def test_a_line_is_drawn_across_stretches(
    seed: Path, elms: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = filled(made(seed, elms), CANDIDATE)
    monkeypatch.setattr(tensors, "STRETCH", 100)
    monkeypatch.setattr(tensors, "PIECE", 1000)
    monkeypatch.setattr(sparse, "STRETCH", 100)
    for name, value in filled(made(seed, elms), CANDIDATE).items():
        assert torch.equal(value, whole[name])


def test_the_same_bits_on_any_number_of_threads_and_at_every_call(
    seed: Path, elms: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = made(seed, elms)
    first = filled(space, CANDIDATE)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    for again in (filled(space, CANDIDATE), filled(made(seed, elms), CANDIDATE)):
        assert all(torch.equal(value, first[name]) for name, value in again.items())


def test_rounds_as_a_stored_checkpoint_does(seed: Path, elms: list[Path]) -> None:
    space = made(seed, elms)
    exact, stored = filled(space, CANDIDATE), filled(space, CANDIDATE, torch.bfloat16)
    half = filled(space, CANDIDATE, torch.bfloat16, torch.bfloat16)
    for name, value in stored.items():
        assert not torch.equal(value, exact[name])
        assert torch.equal(value, value.bfloat16().float())
        assert torch.equal(half[name].float(), value)


def test_leaves_its_files_alone(seed: Path, elms: list[Path]) -> None:
    before = {elm: read_checkpoint(elm).content_hash for elm in (seed, *elms)}
    filled(made(seed, elms), CANDIDATE)
    assert {elm: read_checkpoint(elm).content_hash for elm in before} == before


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (uniform(2), r"of shape \(1, 2\)"),
        (uniform(3, 2), r"of shape \(2, 3\)"),
        (Candidate(np.array([[1, 1, 1.1]]), np.ones((1, 3))), "alpha: has values outside"),
        (Candidate(np.ones((1, 3)), np.array([[1, np.nan, 1]])), "beta: has values that are not"),
    ],
)
def test_refuses_candidates_that_do_not_fit(
    seed: Path, elms: list[Path], candidate: Candidate, reason: str
) -> None:
    with pytest.raises(CandidateError, match=reason):
        filled(made(seed, elms), candidate)


def test_refuses_elms_that_do_not_fit(seed: Path, elms: list[Path], tmp_path: Path) -> None:
    other = make_base(tmp_path / "other", seed=9)
    with pytest.raises(LineageError, match="'stranger' does not fit 'seed'"):
        made(seed, [elms[0], make_elm(tmp_path / "stranger", other, 4)])
    with pytest.raises(KeysError, match="'deep'"):
        made(seed, [make_deeper(tmp_path / "deep", seed)])
    with pytest.raises(LayerGroupsError, match="groups=3"):
        made(seed, elms, 3)


def make_deeper(folder: Path, seed: Path) -> Path:
    """A checkpoint whose config is the seed's and whose layers are more."""
    make_base(folder, layers=3)
    shutil.copy(seed / "config.json", folder / "config.json")
    return folder
