"""Feature 22: generation from the ensemble. The mixture sums to 1; with the key-value cache it is
what it is without one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tests.support.forests import as_elms, make_forest

from evomerge.connectors.local.engine_model import Prompt
from evomerge.connectors.local.engine_values import Ask
from evomerge.connectors.local.forest.elms import Elms
from evomerge.connectors.local.forest.ensemble import ForestScorer, Mixing
from evomerge.connectors.local.forest.generation import EnsembleModel
from evomerge.connectors.local.rows import Row
from evomerge.merging.forest.prior import Prior

PRIOR = np.array([0.1, 0.2, 0.4, 0.3])
TEXTS = ["Berlin is in", "a", "one two three four five"]
STEPS = 8
MIXINGS = {
    "all": Mixing(Prior.cached(PRIOR)),
    "previous token": Mixing(Prior.cached(PRIOR), "previous"),
    "two a token": Mixing(Prior.cached(PRIOR), top_k=2),
    "three static": Mixing(Prior.cached(PRIOR), top_k=3, top_k_kind="static"),
    "one static": Mixing(Prior.cached(PRIOR), top_k=1, top_k_kind="static"),
}


@pytest.fixture(scope="module")
def forest(tmp_path_factory: pytest.TempPathFactory) -> Elms:
    folders = make_forest(tmp_path_factory.mktemp("forest"), [f"elm{n}" for n in range(4)])
    return Elms(as_elms(folders), device="cpu", threads=1)


@pytest.fixture(params=MIXINGS)
def mixing(request: pytest.FixtureRequest) -> Mixing:
    return MIXINGS[request.param]


@pytest.fixture
def model(forest: Elms, mixing: Mixing) -> EnsembleModel:
    return EnsembleModel(forest.models(mixing.running), mixing)


def prompts(model: EnsembleModel) -> list[tuple[int, ...]]:
    return [tuple(model.tokenizer(text).input_ids) for text in TEXTS]


def written(
    model: EnsembleModel, texts: Sequence[tuple[int, ...]], seed: int
) -> tuple[list[list[int]], np.ndarray]:
    """Tokens drawn for each text, and the log-probabilities (steps, texts, vocabulary) that they
    were drawn by; all texts in one batch, with keys and values kept."""
    rng = np.random.default_rng(seed)
    tokens = [list(text) for text in texts]
    steps = []
    with model.running():
        read = model.read([Prompt(Ask(text, STEPS)) for text in texts], keep=True)
        logits = read.logits
        for _ in range(STEPS):
            steps.append(logits.double().numpy())
            p = np.exp(steps[-1])
            drawn = [int(rng.choice(len(row), p=row / row.sum())) for row in p]
            for text, token in zip(tokens, drawn, strict=True):
                text.append(token)
            read.rows.observe(list(drawn))
            logits = read.rows.step(drawn)
    return tokens, np.array(steps)


def test_the_mixture_sums_to_one_at_every_token(model: EnsembleModel) -> None:
    _, log_probs = written(model, prompts(model), seed=1)
    np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_with_the_cache_it_is_what_it_is_without(model: EnsembleModel, seed: int) -> None:
    texts = prompts(model)
    tokens, log_probs = written(model, texts, seed)
    for row, text in enumerate(texts):
        for step in range(STEPS):
            so_far = tuple(tokens[row][: len(text) + step])
            with model.running():
                anew = model.read([Prompt(Ask(so_far, 1))], keep=False).logits[0]
            np.testing.assert_allclose(log_probs[step, row], anew.double().numpy(), atol=2e-4)


def test_what_is_written_is_as_likely_as_it_is_scored(
    forest: Elms, model: EnsembleModel, mixing: Mixing
) -> None:
    """Generation and scoring are one ensemble: by other code, and each ELM by itself."""
    texts = prompts(model)
    tokens, log_probs = written(model, texts, seed=4)
    rows = [Row(tuple(both), 1) for both in tokens]
    scored = ForestScorer(forest, batch_tokens=256).score(rows, mixing)
    for row, (text, found) in enumerate(zip(texts, scored.log_probs, strict=True)):
        drawn = tokens[row][len(text) :]
        given = [log_probs[step, row, token] for step, token in enumerate(drawn)]
        np.testing.assert_allclose(given, found[len(text) - 1 :], atol=2e-4)
