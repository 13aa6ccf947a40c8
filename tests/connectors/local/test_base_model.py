"""Loading a base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.support.tiny import tokenizer
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    PreTrainedConfig,
    RecurrentGemmaConfig,
)

from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.errors import BaseFolderError

SIZES = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": None,
}


def test_what_a_base_says_of_itself(base: BaseModel, base_folder: Path) -> None:
    assert (base.name, base.context_tokens, base.dtype) == ("tiny", 256, torch.float32)
    assert base.device == torch.device("cpu")
    assert base.end_tokens == [256]
    assert load_base(base_folder, name="mine", threads=1).name == "mine"
    assert load_base(base_folder, threads=1).content_hash == base.content_hash
    assert not any(weight.requires_grad for weight in base.model.parameters())


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**SIZES, final_logit_softcapping=1.5),
        CohereConfig(**SIZES, logit_scale=0.25),
        GraniteConfig(**SIZES, logits_scaling=3.0),
    ],
    ids=lambda config: config.model_type,
)
def test_logits_in_two_steps_are_the_architectures_own(
    config: PreTrainedConfig, tmp_path: Path
) -> None:
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    base = load_base(tmp_path, threads=1)
    tokens = torch.tensor([[5, 80, 200, 7]])
    with base.running():
        whole = base.model(tokens).logits
        torch.testing.assert_close(base.logits(base.hidden(tokens)), whole)


@pytest.mark.parametrize(
    ("config", "packs"),
    [
        (Gemma2Config(**SIZES), True),  # some layers attend within a sliding window
        (CohereConfig(**SIZES), True),
        (BloomConfig(**SIZES, n_layer=2, n_head=4), False),  # takes no positions
        (RecurrentGemmaConfig(**SIZES | {"num_hidden_layers": 3}, lru_width=32), False),
    ],
    ids=["gemma2", "cohere", "bloom", "recurrent_gemma"],
)
def test_rows_share_lines_only_where_the_architecture_keeps_them_apart(
    config: PreTrainedConfig, packs: bool, tmp_path: Path
) -> None:
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    base = load_base(tmp_path, threads=1)
    assert base.packs is packs
    if packs:
        tokens = torch.tensor([[5, 80, 200, 7, 5, 80, 9]])
        with base.running():
            shared = base.hidden(tokens, torch.tensor([[0, 1, 2, 3, 0, 1, 2]]))
            alone = torch.cat([base.hidden(tokens[:, :4]), base.hidden(tokens[:, 4:])], 1)
        torch.testing.assert_close(shared, alone, atol=1e-5, rtol=1e-4)


def test_an_architecture_that_does_more_to_its_logits_is_refused(
    base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BaseModel, "logits", lambda self, states: 2 * self.projection(states))
    with pytest.raises(BaseFolderError, match="LlamaForCausalLM does more to its logits"):
        load_base(base_folder, threads=1)


def test_half_precision_loads_as_asked(base_folder: Path) -> None:
    base = load_base(base_folder, dtype="bfloat16", threads=1)
    assert base.dtype == torch.bfloat16
    assert not base.packs


def test_pickled_weights_are_refused(base_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder, tmp_path / "pickled")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BaseFolderError, match="is a pickle and is never loaded"):
        load_base(copy)


def test_remote_code_is_refused_and_not_run(base_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder, tmp_path / "remote")
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "own.py").write_text("raise SystemExit('ran remote code')")
    with pytest.raises(BaseFolderError, match="cannot be loaded"):
        load_base(copy)


def test_a_tokenizer_without_end_of_text_is_refused(base_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder, tmp_path / "endless")
    fields = json.loads((copy / "tokenizer_config.json").read_text())
    del fields["eos_token"]
    (copy / "tokenizer_config.json").write_text(json.dumps(fields))
    with pytest.raises(BaseFolderError, match="no end-of-text"):
        load_base(copy)


def test_a_damaged_config_is_refused(base_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(base_folder, tmp_path / "damaged")
    (copy / "config.json").write_text("{")
    with pytest.raises(BaseFolderError, match="cannot be loaded"):
        load_base(copy)
