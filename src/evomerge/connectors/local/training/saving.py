"""Tensors and models to files, a full disk told as the system tells it."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from evomerge.connectors.local.loading import making_a_model

_CODE = re.compile(r"(?:os error|code:) (\d+)")


def save_tensors(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write a safetensors file.

    Raises:
        OSError: the system refuses.
    """
    with _system_errors():
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, file)


def save_model(model: PreTrainedModel, folder: Path) -> None:
    """Write a model's configuration and weights into a folder.

    Raises:
        OSError: the system refuses.
    """
    with _system_errors(), making_a_model():
        model.save_pretrained(folder)


@contextmanager
def _system_errors() -> Iterator[None]:
    """safetensors gives the system's number in its text alone."""
    try:
        yield
    except SafetensorError as error:
        code = _CODE.search(str(error))
        raise OSError(int(code[1]) if code else errno.EIO, str(error)) from error
