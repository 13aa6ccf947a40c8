"""Models are made one at a time: transformers changes process-wide state while it makes one.

`from_pretrained` replaces `PreTrainedModel.tie_weights` and torch's default dtype for the time of
the call and then puts back what it found. Of two calls that overlap, the second finds what the
first had put there, and leaves it behind: from then on no model of the process gets its tied
weights. A model that is made beside such a call misses its ties too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

_one_at_a_time = threading.RLock()


@contextmanager
def making_a_model() -> Iterator[None]:
    """Hold this around whatever makes, loads or writes a transformers model, in any thread.

    No progress bar is shown meanwhile: most that would read it are logs.
    """
    with _one_at_a_time, _without_bars():
        yield


@contextmanager
def _without_bars() -> Iterator[None]:
    """transformers' switch is the process's, and turns the hub's with it; both are put back."""
    shown, hidden_hub = logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
        if hidden_hub:
            disable_progress_bars()


def load_causal_lm(
    folder: Path,
    dtype: torch.dtype,
    *,
    device_map: str | None = None,
    gguf_file: str | None = None,
) -> PreTrainedModel:
    """The language model of a local folder: safe weights only, no code of the folder's own.

    Raises:
        ValueError, KeyError, OSError, NotImplementedError, SafetensorError: transformers' own, of
            a folder that it cannot load.
    """
    with making_a_model():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map=device_map,
            gguf_file=gguf_file,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    return model
