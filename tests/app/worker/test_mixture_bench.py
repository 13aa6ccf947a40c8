"""A bench over numbers that ELMs gave: what a candidate means, and what is stored of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.elm_texts import log_probs_of
from tests.support.jobs import write_dataset

from evomerge.app.mixtures import FOREST_MIXTURE, StoredMixture, Voice
from evomerge.app.schemas.inputs import ExpertInput, JobInputs, SeedInput
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.inputs import Side
from evomerge.app.worker.mixture_bench import MixtureBench, ReadSide
from evomerge.evaluation import Example, Objective
from evomerge.optimizers import Candidate
from evomerge.optimizers.candidate import base, one_hot

ELMS = 3
SEED = SeedInput(forest="grove", path=Path("seed"), content_hash="5" * 64)


def side(examples: int, number: int) -> ReadSide:
    """Texts of twelve tokens, the last ten of which are scored."""
    texts = tuple(Example("", f"text {number} {n}", row=n + 1) for n in range(examples))
    given = tuple(log_probs_of(number * 100 + n, 1 + ELMS, 11) for n in range(examples))
    return ReadSide(Side(texts, Objective((examples,), (1.0,))), given, (10,) * examples)


@pytest.fixture
def parts() -> tuple[ReadSide, ReadSide]:
    return side(8, 1), side(6, 2)


def bench(parts: tuple[ReadSide, ReadSide], folder: Path, **changes: Any) -> MixtureBench:
    spec = MergeJobSpec.model_validate(
        {"pool": "grove", "space": "output", "objective": {"datasets": [{"dataset": "a"}]}}
        | changes
    )
    experts = [
        ExpertInput(id=f"elm_{n}", name=f"elm-{n}", kind="elm", content_hash=f"{n}" * 64)
        for n in range(ELMS)
    ]
    inputs = JobInputs(seed=SEED, experts=experts, datasets=[write_dataset(folder)])
    return MixtureBench(spec, inputs, SEED, *parts)


def losses(bench: MixtureBench, of: ReadSide, candidate: Candidate) -> np.ndarray:
    evaluator = bench.evaluator("cross_entropy")
    return asyncio.run(evaluator.score([candidate], of.side.examples)).losses[0]


def plain(of: ReadSide, weights: list[float]) -> list[float]:
    """-log of the mixture of seed and ELMs, by the token."""
    shares = np.array(weights) / sum(weights)
    return [float(-np.log(shares @ np.exp(every[:, -10:])).mean()) for every in of.log_probs]


@pytest.mark.parametrize(
    ("alpha", "beta", "weights"),
    [
        ([1, 1, 1], [0.5, 0.2, 0.1], [0, 0.5, 0.2, 0.1]),
        ([1, 0, 1], [3.0, 5.0, 1.0], [0, 3, 0, 1]),
        ([1, 1, 1], [-1.0, 0.4, 0.0], [0, 0, 1, 0]),
        ([1, 1, 1], [-1.0, -0.4, 0.0], [1, 0, 0, 0]),
        ([0, 0, 0], [1.0, 1.0, 1.0], [1, 0, 0, 0]),
    ],
)
def test_what_is_proven_is_what_is_stored(
    parts: tuple[ReadSide, ReadSide],
    tmp_path: Path,
    alpha: list[float],
    beta: list[float],
    weights: list[float],
) -> None:
    """Dropped and negative ELMs weigh nothing; where none is left the seed speaks."""
    made = bench(parts, tmp_path)
    candidate = Candidate(np.array([alpha], float), np.array([beta]))
    for each in parts:
        assert losses(made, each, candidate) == pytest.approx(plain(each, weights))
    made.merge(candidate).write(tmp_path)
    stored = StoredMixture.read(tmp_path)
    names = ["seed", "elm-0", "elm-1", "elm-2"]
    hashes = [SEED.content_hash, *(f"{n}" * 64 for n in range(ELMS))]
    shares = (np.array(weights) / sum(weights)).tolist()
    assert stored.forest == "grove"
    assert stored.voices == tuple(
        Voice(name, content_hash, pytest.approx(share))
        for name, content_hash, share in zip(names, hashes, shares, strict=True)
        if share
    )
    merged = made.merge(candidate).evaluator("cross_entropy")
    proof = parts[1].side.examples
    found = asyncio.run(merged.score([one_hot(0, ELMS)], proof)).losses[0]
    assert found == pytest.approx(plain(parts[1], weights))


def test_the_base_is_the_seed(parts: tuple[ReadSide, ReadSide], tmp_path: Path) -> None:
    made = bench(parts, tmp_path)
    assert made.base_hash == SEED.content_hash
    assert losses(made, parts[1], base(ELMS)) == pytest.approx(plain(parts[1], [1, 0, 0, 0]))


def test_a_price_counts_in_the_search_and_not_in_the_proof(
    parts: tuple[ReadSide, ReadSide], tmp_path: Path
) -> None:
    free, dear = bench(parts, tmp_path), bench(parts, tmp_path, fusion={"price": 0.3})
    search, proof = parts
    for elms in (1, 2, 3):
        beta = np.array([[1.0] * elms + [0.0] * (ELMS - elms)])
        candidate = Candidate(np.ones((1, ELMS)), beta)
        more = losses(dear, search, candidate) - losses(free, search, candidate)
        assert more == pytest.approx(0.3 * elms / ELMS)
        assert np.array_equal(losses(dear, proof, candidate), losses(free, proof, candidate))


def test_what_is_held_out_moves_no_posterior(
    parts: tuple[ReadSide, ReadSide], tmp_path: Path
) -> None:
    one, other = bench(parts, tmp_path), bench((parts[0], side(9, 3)), tmp_path)
    for name, baseline in one.baselines().items():
        again = other.baselines()[name].candidate
        assert np.array_equal(baseline.candidate.beta, again.beta), name
    (start,) = one.starts()
    posterior = one.baselines()["posterior"].candidate.beta[0]
    np.testing.assert_allclose(start, posterior, atol=0.0006)


def test_a_probability_of_zero_is_a_large_loss_and_no_error(tmp_path: Path) -> None:
    read = side(4, 1)
    read.log_probs[0][2, -3] = -np.inf
    made = bench((read, side(4, 2)), tmp_path)
    found = losses(made, read, one_hot(1, ELMS))
    assert np.isfinite(found).all()
    assert found[0] > 10 * found[1:].max()


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / FOREST_MIXTURE).write_text('{"version": 2, "forest": "a", "voices": []}')
    with pytest.raises(ValueError, match="version 2"):
        StoredMixture.read(tmp_path)
