"""A LoRA expert as PEFT stores it: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evomerge.merging.lora.config import AdapterConfig, read_config
from evomerge.merging.lora.errors import (
    AdapterFileError,
    BaseMismatchError,
    PickleFileError,
    TensorError,
)

WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."
_SUFFIXES = {".lora_A.weight": "A", ".lora_B.weight": "B"}
_DTYPES = frozenset({"F32", "F16", "BF16"})
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")
# How a pickle, and the zip archive that torch.save wraps around one, begin.
_PICKLE_STARTS = (b"\x80", b"PK\x03\x04")


@dataclass(frozen=True)
class ModuleShape:
    """Sizes of one adapted module: A is (rank, d_in), B is (d_out, rank)."""

    rank: int
    d_in: int
    d_out: int


@dataclass(frozen=True, eq=False)
class AdapterHeader:
    """What can be known of an adapter without reading its weights.

    Attributes:
        folder: where it is.
        name: of the folder.
        base_name: the base its configuration names; may be empty.
        shapes: by full module name in the base.
    """

    folder: Path
    name: str
    base_name: str
    shapes: Mapping[str, ModuleShape]
    config: AdapterConfig

    def check_against(self, base_shapes: Mapping[str, tuple[int, int]]) -> None:
        """Refuse a base that the adapter does not fit.

        Args:
            base_shapes: (d_out, d_in) of the base's linear modules, by full name.

        Raises:
            BaseMismatchError: names the tensor whose module is missing or has another shape.
        """
        _check_against(self.folder / WEIGHTS_FILE, self.shapes, base_shapes)

    def load(self) -> LoraAdapter:
        """Read the weights.

        Raises:
            TensorError: a tensor holds NaN or infinity, or does once scaled; names it.
            AdapterFileError: the file cannot be read any more.
        """
        file = self.folder / WEIGHTS_FILE
        modules: dict[str, tuple[Tensor, Tensor]] = {}
        digest = hashlib.sha256()
        with _opened(file) as weights:
            for module, shape in self.shapes.items():
                scale = self.config.scale_of(module)
                raw = [_finite(weights, file, module, factor) for factor in "AB"]
                digest.update(f"{module} {shape} {scale!r}\n".encode())
                for tensor in raw:
                    digest.update(f"{tensor.dtype}\n".encode())
                    digest.update(_bytes(tensor))
                a, b = (tensor.to(torch.float32) for tensor in raw)
                modules[module] = (a, _scaled(file, module, b, scale))
        return LoraAdapter(
            name=self.name,
            base_name=self.base_name,
            modules=modules,
            content_hash=digest.hexdigest(),
            file=file,
        )


@dataclass(frozen=True, eq=False)
class LoraAdapter:
    """One expert in memory.

    Attributes:
        name: for people.
        base_name: the base its configuration names; may be empty.
        modules: by full module name in the base: A (r, d_in) and B (d_out, r), float32, with the
            scale s = lora_alpha / r (or / sqrt(r)) folded into B, so that the update is B @ A.
        content_hash: SHA-256 over module names, scales, dtypes and stored bytes.
        file: where the weights were read, for messages.
    """

    name: str
    base_name: str
    modules: Mapping[str, tuple[Tensor, Tensor]]
    content_hash: str
    file: Path

    @property
    def shapes(self) -> dict[str, ModuleShape]:
        return {
            module: ModuleShape(int(a.shape[0]), int(a.shape[1]), int(b.shape[0]))
            for module, (a, b) in self.modules.items()
        }

    def check_against(self, base_shapes: Mapping[str, tuple[int, int]]) -> None:
        """See `AdapterHeader.check_against`."""
        _check_against(self.file, self.shapes, base_shapes)


def read_adapter(folder: Path) -> LoraAdapter:
    """Read a whole adapter.

    Raises:
        AdapterError: as `read_header` and `AdapterHeader.load` do.
    """
    return read_header(folder).load()


def read_header(folder: Path) -> AdapterHeader:
    """Read configuration, names, shapes and dtypes, and no weights.

    Raises:
        AdapterFileError: a file is missing or is not what its name says.
        PickleFileError: the weights are a pickle.
        AdapterConfigError: a field of the configuration is not supported or malformed.
        TensorError: a tensor has no partner, an unexpected name, dtype, shape or rank.
    """
    config = read_config(folder)
    file = _weights_file(folder)
    with _opened(file) as weights:
        pairs = _pair_names(file, sorted(weights.keys()))
        shapes = {module: _shape(weights, file, module, config) for module in pairs}
    return AdapterHeader(
        folder=folder,
        name=folder.name,
        base_name=config.base_name,
        shapes=shapes,
        config=config,
    )


def tensor_name(module: str, factor: str) -> str:
    """PEFT's name for factor "A" or "B" of a module."""
    return f"{PREFIX}{module}.lora_{factor}.weight"


def _weights_file(folder: Path) -> Path:
    file = folder / WEIGHTS_FILE
    if file.is_file():
        with file.open("rb") as stream:
            start = stream.read(16)
        # A safetensors header begins with a length of 8 bytes and then "{"; a length may begin
        # with any byte, so that the rest has to be looked at as well.
        if start.startswith(_PICKLE_STARTS) and start[8:9] != b"{":
            raise PickleFileError(file)
        return file
    for name in _PICKLES:
        if (folder / name).exists():
            raise PickleFileError(folder / name)
    raise AdapterFileError(file, "No such file")


def _pair_names(file: Path, names: list[str]) -> list[str]:
    """The adapted modules, sorted, every one with an A and a B."""
    found: dict[str, set[str]] = {}
    for name in names:
        module, factor = _split(file, name)
        found.setdefault(module, set()).add(factor)
    if not found:
        raise AdapterFileError(file, "holds no tensor")
    for module, factors in found.items():
        for factor, other in (("A", "B"), ("B", "A")):
            if factor not in factors:
                missing = tensor_name(module, factor)
                raise TensorError(file, tensor_name(module, other), f"has no partner {missing!r}")
    return sorted(found)


def _split(file: Path, name: str) -> tuple[str, str]:
    for suffix, factor in _SUFFIXES.items():
        if name.startswith(PREFIX) and name.endswith(suffix):
            module = name[len(PREFIX) : -len(suffix)]
            if module:
                return module, factor
    raise TensorError(file, name, "is not a factor of a LoRA on a linear module")


def _shape(weights: Any, file: Path, module: str, config: AdapterConfig) -> ModuleShape:
    sizes: dict[str, list[int]] = {}
    for factor in "AB":
        name = tensor_name(module, factor)
        view = weights.get_slice(name)
        if view.get_dtype() not in _DTYPES:
            wanted = ", ".join(sorted(_DTYPES))
            raise TensorError(file, name, f"is of dtype {view.get_dtype()}, not of {wanted}")
        sizes[factor] = view.get_shape()
        if len(sizes[factor]) != 2 or 0 in sizes[factor]:
            raise TensorError(file, name, f"of shape {sizes[factor]} is no factor of a matrix")
    rank = config.rank_of(module)
    for factor, given in (("A", sizes["A"][0]), ("B", sizes["B"][1])):
        if given != rank:
            raise TensorError(
                file, tensor_name(module, factor), f"has rank {given}, the configuration {rank}"
            )
    return ModuleShape(rank=rank, d_in=sizes["A"][1], d_out=sizes["B"][0])


def _check_against(
    file: Path, shapes: Mapping[str, ModuleShape], base_shapes: Mapping[str, tuple[int, int]]
) -> None:
    for module, shape in shapes.items():
        if module not in base_shapes:
            raise BaseMismatchError(
                file, tensor_name(module, "A"), f"adapts {module!r}, which the base does not have"
            )
        d_out, d_in = base_shapes[module]
        for factor, given, wanted in (("A", shape.d_in, d_in), ("B", shape.d_out, d_out)):
            if given != wanted:
                raise BaseMismatchError(
                    file,
                    tensor_name(module, factor),
                    f"is for a module {given} wide, in the base it is {wanted}",
                )


def _finite(weights: Any, file: Path, module: str, factor: str) -> Tensor:
    name = tensor_name(module, factor)
    tensor: Tensor = weights.get_tensor(name)
    if not bool(torch.isfinite(tensor).all()):
        raise TensorError(file, name, "holds NaN or infinity")
    return tensor


def _scaled(file: Path, module: str, B: Tensor, scale: float) -> Tensor:
    scaled = B * scale
    if not bool(torch.isfinite(scaled).all()):
        name = tensor_name(module, "B")
        raise TensorError(file, name, f"overflows float32 under its scale of {scale:g}")
    return scaled


def _bytes(tensor: Tensor) -> memoryview:
    """The stored bytes of a tensor, not copied."""
    return cast("NDArray[np.uint8]", tensor.contiguous().view(torch.uint8).numpy()).data


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as weights:
            yield weights
    except (SafetensorError, OSError) as error:
        raise AdapterFileError(file, f"is not a readable safetensors file: {error}") from error
