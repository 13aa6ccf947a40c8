"""Cross-entropy on a part: each of its tokens is predicted once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from evomerge.connectors.local.training.perplexity import EvaluationRows, mean_loss
from evomerge.connectors.local.training.run import Elm
from evomerge.connectors.local.training.start import load_model
from evomerge.connectors.local.training.tokens import TokenCache

END = 0


def part(folder: Path, tokens: list[int], length: int) -> EvaluationRows:
    folder.mkdir(exist_ok=True)
    np.array(tokens, "<u2").tofile(folder / "dev.tokens")
    return EvaluationRows(TokenCache("d", "h", folder, np.dtype("<u2")), "dev", length)


@given(count=st.integers(1, 60), length=st.integers(1, 20))
def test_each_token_is_a_target_once_after_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, count: int, length: int
) -> None:
    tokens = [*range(1, count), END]
    rows = part(tmp_path_factory.getbasetemp() / "rows", tokens, length)
    assert len(rows) == math.ceil(count / length)
    taken = rows.rows(0, len(rows))
    assert taken.shape == (len(rows), length + 1)
    targets, inputs = taken[:, 1:].ravel(), taken[:, :-1].ravel()
    assert targets[targets >= 0].tolist() == tokens
    assert inputs[targets >= 0].tolist() == [END, *tokens[:-1]]
    assert rows.targets == count


def test_an_empty_part_has_no_row(tmp_path: Path) -> None:
    assert len(part(tmp_path, [], 4)) == 0


@pytest.mark.parametrize("batch", [1, 2, 50])
def test_the_mean_is_that_over_all_tokens(tmp_path: Path, seed: Elm, batch: int) -> None:
    model = load_model(seed.folder)
    tokens = [*range(1, 46), END]
    loss = mean_loss(model, part(tmp_path, tokens, 16), batch, torch.device("cpu"), lambda: None)
    nll = []
    for start in range(0, 46, 16):
        own = torch.tensor(tokens[start : start + 16])
        before = torch.tensor([[END, *tokens[:-1]][start : start + 16]])
        with torch.inference_mode():
            logits = model(input_ids=before).logits[0]
        nll += functional.cross_entropy(logits, own, reduction="none").tolist()
    assert loss == pytest.approx(sum(nll) / 46, rel=1e-5)
