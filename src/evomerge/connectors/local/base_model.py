"""A base model, loaded once and shared by everything that scores its candidates."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from evomerge.connectors.local.errors import BaseFolderError
from evomerge.connectors.local.headers import content_hash, weight_files
from evomerge.connectors.local.loading import load_causal_lm

_PROBE_TOKENS = 3
# Rounding apart, what a row gives in a line with others is what it gives alone.
_PACKED_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A causal language model with its tokenizer.

    Attributes:
        name: what people call it.
        content_hash: sha256 of its config, tokenizer and weights.
        model: in evaluation mode; its linear layers are replaced only inside `running`.
        decoder: the part of it that gives hidden states.
        projection: the part of it that turns them into logits.
        tokenizer: its tokenizer.
        context_tokens: tokens that one row may have at most.
        threads: CPU threads of a forward; results are reproducible for one number of threads.
        linears: every linear layer that an adapter may touch, by full module name.
        packs: whether `hidden` keeps several rows in one line apart.
    """

    name: str
    content_hash: str
    model: PreTrainedModel
    decoder: nn.Module
    projection: nn.Linear
    tokenizer: PreTrainedTokenizerBase
    context_tokens: int
    threads: int
    linears: Mapping[str, nn.Linear]
    packs: bool = False
    _lock: AbstractContextManager[bool] = field(default_factory=threading.RLock)

    @property
    def device(self) -> torch.device:
        """Where token ids go (the first device of a device map)."""
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """In what the model computes."""
        kind: torch.dtype = self.model.dtype
        return kind

    @property
    def end_tokens(self) -> list[int]:
        """Token ids that end an answer: the tokenizer's end-of-text, then the model's own."""
        own = self.model.generation_config.eos_token_id if self.model.generation_config else None
        known = [self.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
        return list(dict.fromkeys(token for token in known if token is not None))

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(d_out, d_in) of every linear layer that an adapter may touch, by module name."""
        return {
            name: (int(layer.out_features), int(layer.in_features))
            for name, layer in self.linears.items()
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Hold the model for a computation without gradients; one thread at a time gets it.

        May be used again inside of itself.
        """
        with self._lock, torch.inference_mode():
            # OpenMP counts threads per calling thread; a thread pool's starts from the default.
            torch.set_num_threads(self.threads)
            yield

    def hidden(self, tokens: Tensor, positions: Tensor | None = None) -> Tensor:
        """Last hidden states (lines, length, d), without the vocabulary projection.

        No attention mask: lines are padded on the right, and under causal attention no real
        token sees what follows it; what stands at the padding is never read.

        Args:
            tokens: (lines, length), one row or several in each line.
            positions: of each token in its row, where a line holds several; transformers then
                lets no token see those of another row. For a base that `packs` only.
        """
        placed = {} if positions is None else {"position_ids": positions}
        states: Tensor = self.decoder(tokens, use_cache=False, **placed).last_hidden_state
        return states

    def logits(self, states: Tensor) -> Tensor:
        """Next-token logits (..., vocabulary) float32 of last hidden states (..., d)."""
        logits: Tensor = self.projection(states.to(self.projection.weight.device)).float()
        config = self.model.config
        if scale := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * scale
        if scale := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / scale
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma
        return torch.tanh(logits / cap) * cap if cap else logits


def load_base(
    folder: Path,
    *,
    name: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
) -> BaseModel:
    """Load a base model from a folder in the Hugging Face safetensors format.

    Args:
        folder: holds config.json, *.safetensors and the tokenizer.
        name: what people call it; the folder's name by default.
        device: "auto" (every CUDA device by a device map, or the CPU), "cpu", "cuda:1", or the
            name of a device map ("balanced", "sequential").
        dtype: "auto" (float32 on a CPU, bfloat16 on CUDA), "float32" or "bfloat16".
        threads: CPU threads of torch, set for the process whenever the model runs; torch's own
            choice by default.

    Raises:
        BaseFolderError: the folder is not such a model, has pickled weights only, or is of an
            architecture that cannot be loaded without remote code or scored in two steps.
    """
    weight_files(folder)
    place = _place(device)
    kind = _dtype(dtype, place)
    try:
        model = load_causal_lm(folder, kind, device_map=None if place == "cpu" else place)
        tokenizer = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except (ValueError, KeyError, OSError, json.JSONDecodeError) as error:
        raise BaseFolderError(folder, f"cannot be loaded: {error}") from error
    model.eval().requires_grad_(False)  # type: ignore[no-untyped-call]
    projection = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    if not isinstance(projection, nn.Linear):
        raise BaseFolderError(folder, "has no vocabulary projection")
    if tokenizer.eos_token_id is None:
        raise BaseFolderError(folder, "its tokenizer has no end-of-text token")
    base = BaseModel(
        name=name or folder.name,
        content_hash=content_hash(folder),
        model=model,
        decoder=model.get_decoder(),  # type: ignore[no-untyped-call]
        projection=projection,
        tokenizer=tokenizer,
        context_tokens=_context(model.config, folder),
        threads=threads or torch.get_num_threads(),
        linears=_linears(model, projection),
    )
    _check_two_steps(base, folder)
    return replace(base, packs=_keeps_rows_apart(base))


def _place(device: str) -> str:
    """A torch device, or the name of a device map over all of them."""
    if device != "auto":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {0: "cpu", 1: "cuda:0"}.get(count, "auto")


def _dtype(dtype: str, place: str) -> torch.dtype:
    if dtype == "auto":
        dtype = "float32" if place == "cpu" else "bfloat16"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


def _linears(model: PreTrainedModel, projection: nn.Linear) -> dict[str, nn.Linear]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not projection
    }


def _context(config: Any, folder: Path) -> int:
    size = getattr(config, "max_position_embeddings", None)
    if not isinstance(size, int):
        raise BaseFolderError(folder, "config.json has no max_position_embeddings")
    return size


def _check_two_steps(base: BaseModel, folder: Path) -> None:
    """Refuse an architecture whose logits are more than projection(decoder(tokens))."""
    tokens = torch.arange(_PROBE_TOKENS, device=base.device)[None]
    with base.running():
        whole = base.model(tokens, use_cache=False).logits.float()
        parts = base.logits(base.hidden(tokens)).to(whole.device)
    if not torch.allclose(whole, parts, rtol=1e-2, atol=1e-2 * float(whole.abs().max())):
        raise BaseFolderError(
            folder, f"{type(base.model).__name__} does more to its logits than is supported"
        )


def _keeps_rows_apart(base: BaseModel) -> bool:
    """Whether two rows in one line give what each gives alone: seen, not assumed.

    In float32 only, where a difference can be told from rounding. Architectures that keep a
    state besides attention, or take no positions, do not.
    """
    if base.dtype != torch.float32:
        return False
    if "position_ids" not in inspect.signature(base.decoder.forward).parameters:
        return False
    tokens = torch.arange(2 * _PROBE_TOKENS, device=base.device)[None]
    with base.running():
        alone = base.hidden(tokens.view(2, _PROBE_TOKENS)).view(1, 2 * _PROBE_TOKENS, -1)
        positions = torch.arange(_PROBE_TOKENS, device=base.device).repeat(2)[None]
        packed = base.hidden(tokens, positions)
    return bool((packed - alone).abs().max() <= _PACKED_TOLERANCE * alone.abs().max())
