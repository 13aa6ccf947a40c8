"""Models that several threads make at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled
from tests.support.tiny_gguf import make_gguf
from transformers import PreTrainedModel
from transformers.utils import logging

from evomerge.connectors.local.gguf import convert_gguf
from evomerge.connectors.local.loading import load_causal_lm


def test_loads_that_overlap_leave_nothing_behind_and_keep_their_ties(tmp_path: Path) -> None:
    folder = convert_gguf(make_gguf(tmp_path / "tiny.gguf"), tmp_path / "tiny")
    before = PreTrainedModel.tie_weights, torch.get_default_dtype()
    with ThreadPoolExecutor(8) as threads:
        models = list(threads.map(lambda _: load_causal_lm(folder, torch.bfloat16), range(32)))
    assert (PreTrainedModel.tie_weights, torch.get_default_dtype()) == before
    for model in models:
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        assert head.weight is embedding.weight
        assert head.weight.dtype == torch.bfloat16


def test_loads_show_no_progress_bar_and_leave_the_switch_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = convert_gguf(make_gguf(tmp_path / "tiny.gguf"), tmp_path / "tiny")
    logging.enable_progress_bar()
    load_causal_lm(folder, torch.float32)
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()
    assert not are_progress_bars_disabled()
    logging.disable_progress_bar()
    try:
        load_causal_lm(folder, torch.float32)
        assert not logging.is_progress_bar_enabled()
        assert are_progress_bars_disabled()
    finally:
        logging.enable_progress_bar()
