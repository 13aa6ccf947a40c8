"""Models that several threads make at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tests.support.tiny_gguf import make_gguf
from transformers import PreTrainedModel

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
