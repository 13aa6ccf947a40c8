"""A tiny random Llama as a GGUF file, with one token a byte and one merge."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from tests.support.tiny import END_OF_TEXT
from tokenizers import pre_tokenizers

HIDDEN, WIDE, HEADS, LAYERS, CONTEXT = 32, 64, 4, 2, 128


def make_gguf(file: Path, seed: int = 0) -> Path:
    """Write a float32 GGUF and return its path."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(WIDE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    _add_tokenizer(writer)
    _add_tensors(writer, np.random.default_rng(seed))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    writer.add_tokenizer_model("gpt2")
    words = [*alphabet, alphabet[0] + alphabet[1]]
    writer.add_token_list([*words, END_OF_TEXT])
    writer.add_token_types([gguf.TokenType.NORMAL] * len(words) + [gguf.TokenType.CONTROL])
    writer.add_token_merges([f"{alphabet[0]} {alphabet[1]}"])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_unk_token_id):
        add(len(words))


def _add_tensors(writer: gguf.GGUFWriter, rng: np.random.Generator) -> None:
    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, (rng.standard_normal(shape) * 0.2).astype(np.float32))

    add("token_embd.weight", 258, HIDDEN)
    add("output_norm.weight", HIDDEN)
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}.weight", HIDDEN, HIDDEN)
        for part in ("ffn_gate", "ffn_up"):
            add(f"blk.{layer}.{part}.weight", WIDE, HIDDEN)
        add(f"blk.{layer}.ffn_down.weight", HIDDEN, WIDE)
        for part in ("attn_norm", "ffn_norm"):
            add(f"blk.{layer}.{part}.weight", HIDDEN)
