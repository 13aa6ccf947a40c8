"""Convert a GGUF file to a model folder in the Hugging Face safetensors format, once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedModel

from evomerge.connectors.local.errors import BaseFolderError
from evomerge.connectors.local.loading import load_causal_lm, making_a_model


def convert_gguf(source: Path, folder: Path) -> Path:
    """Write the model and tokenizer of GGUF file `source` to `folder`, and return `folder`.

    Weights are dequantised to float32. A folder that is already there is left as it is, for it
    appears by one rename and is therefore whole; so several processes may convert at once.

    Raises:
        BaseFolderError: `source` is not a GGUF file that transformers can read.
        OSError: the folder could not be written.
    """
    if (folder / "config.json").is_file():
        return folder
    with source.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise BaseFolderError(source, "not a GGUF file")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _convert(source, staging)
        staging.chmod(0o755)
        _publish(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def _convert(source: Path, staging: Path) -> None:
    try:
        quantised = load_causal_lm(source.parent, torch.float32, gguf_file=source.name)
        tokenizer = AutoTokenizer.from_pretrained(
            source.parent, gguf_file=source.name, trust_remote_code=False, local_files_only=True
        )
    except (ValueError, KeyError, NotImplementedError) as error:
        raise BaseFolderError(source, f"transformers cannot read this GGUF: {error}") from error
    plain = plain_model(quantised)
    with making_a_model():
        plain.save_pretrained(staging)
    tokenizer.save_pretrained(staging)


def plain_model(quantised: PreTrainedModel) -> PreTrainedModel:
    """The same model without a trace of its quantisation, which save_pretrained would refuse.

    GGUF holds numbers as float32; the config gets back the decimals that they came from
    (rms_norm_eps 1e-5 instead of 9.999999747378752e-06), as a trainer of adapters has them.
    """
    fields = quantised.config.to_dict()
    fields.pop("quantization_config", None)
    config = type(quantised.config).from_dict(
        {
            name: _shortest(value) if type(value) is float else value
            for name, value in fields.items()
        }
    )
    with making_a_model():
        model: PreTrainedModel = type(quantised)(config)
    model.load_state_dict(quantised.state_dict())
    model.generation_config = quantised.generation_config
    return model


def _shortest(value: float) -> float:
    """The shortest decimal that rounds to the same float32."""
    return float(str(np.float32(value)))


def _publish(staging: Path, folder: Path) -> None:
    try:
        staging.rename(folder)
    except OSError:
        # Another process was first; its folder is as good.
        if not (folder / "config.json").is_file():
            raise
