"""A tiny random Llama and random LoRA adapters over it, on disk, made in well under a second."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
END_OF_TEXT = "<|endoftext|>"


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte (256 of them) and an end-of-text token, number 256."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=END_OF_TEXT)


def make_base(
    folder: Path,
    seed: int = 0,
    *,
    layers: int = 2,
    hidden: int = 32,
    heads: int = 4,
    kv_heads: int = 2,
    intermediate: int = 48,
    context: int = 256,
    chat_template: str | None = None,
) -> Path:
    """Write a random float32 Llama with its tokenizer to `folder` and return it.

    Weights are large enough (0.2 standard deviation) that the logits depend on every layer.
    """
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=256,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    words = tokenizer()
    words.chat_template = chat_template
    words.save_pretrained(folder)
    return folder


def make_adapter(
    folder: Path,
    base_folder: Path,
    seed: int = 0,
    *,
    rank: int = 4,
    lora_alpha: float | None = None,
    modules: Sequence[str] = ATTENTION + MLP,
    dtype: torch.dtype = torch.bfloat16,
    strength: float = 0.1,
    **config: object,
) -> Path:
    """Write a random LoRA adapter in PEFT's format to `folder` and return it.

    Both factors are drawn with standard deviation `strength`, so B is not zero as it is before
    training. `lora_alpha` is twice the rank by default; `config` adds fields to (or overrides
    those of) adapter_config.json only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for module, (d_out, d_in) in linear_shapes(base_folder).items():
        if module.rpartition(".")[2] not in modules:
            continue
        for factor, shape in (("A", (rank, d_in)), ("B", (d_out, rank))):
            name = f"base_model.model.{module}.lora_{factor}.weight"
            tensors[name] = (torch.randn(shape, generator=generator) * strength).to(dtype)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base_folder),
        "r": rank,
        "lora_alpha": 2 * rank if lora_alpha is None else lora_alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(modules),
        "inference_mode": True,
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(fields, indent=2))
    return folder


def linear_shapes(base_folder: Path) -> dict[str, tuple[int, int]]:
    """(d_out, d_in) of every adaptable linear layer of a base that `make_base` wrote."""
    fields = json.loads((base_folder / "config.json").read_text())
    hidden, wide = fields["hidden_size"], fields["intermediate_size"]
    head = fields.get("head_dim") or hidden // fields["num_attention_heads"]
    queries, keys = head * fields["num_attention_heads"], head * fields["num_key_value_heads"]
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (wide, hidden),
        "mlp.up_proj": (wide, hidden),
        "mlp.down_proj": (hidden, wide),
    }
    return {
        f"model.layers.{layer}.{name}": shape
        for layer in range(fields["num_hidden_layers"])
        for name, shape in shapes.items()
    }
