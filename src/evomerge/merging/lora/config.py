"""adapter_config.json as PEFT writes it: what is read of it, and what is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from evomerge.merging.lora.errors import AdapterConfigError, AdapterFileError

CONFIG_FILE = "adapter_config.json"

T = TypeVar("T")

# Says where an adapter came from, how it was trained, or what its tensors say too.
_HARMLESS = frozenset(
    {
        "auto_mapping", "base_model_name_or_path", "corda_config",
        "ensure_weight_tying", "eva_config", "exclude_modules", "inference_mode",
        "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config",
        "lora_alpha", "lora_dropout", "lora_ga_config", "megatron_core", "peft_type",
        "peft_version", "qalora_group_size", "r", "rank_pattern", "alpha_pattern", "revision",
        "runtime_config", "target_modules", "task_type", "use_rslora", "bias",
    }
)  # fmt: skip
# Starts that leave the base as it is. The others (pissa, olora, corda, loftq, ...) train against
# a base they changed, so that their factors mean nothing over the plain one.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")
_MAX_BYTES = 1 << 20
_MAX_PATTERN = 200
_MAX_QUANTIFIERS = 2


@dataclass(frozen=True)
class AdapterConfig:
    """What of an adapter's configuration makes up its function.

    Attributes:
        file: where it was read.
        base_name: the base it says it was trained on; empty if it does not say.
        rank, alpha: r and lora_alpha where no pattern says otherwise.
        rank_pattern, alpha_pattern: by regular expression on the end of a module's name.
        rslora: scale by alpha / sqrt(r) instead of alpha / r.
    """

    file: Path
    base_name: str
    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool

    def rank_of(self, module: str) -> int:
        """r of one module."""
        return _by_pattern(self.rank_pattern, module, self.rank)

    def scale_of(self, module: str) -> float:
        """s of one module, the factor on B @ A."""
        rank = self.rank_of(module)
        alpha = _by_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def read_config(folder: Path) -> AdapterConfig:
    """Read and check the configuration of the adapter in `folder`.

    Raises:
        AdapterFileError: the file is missing, too large or not a JSON object.
        AdapterConfigError: a field is malformed, or changes the function in a way that is not
            supported (DoRA, biases, modules_to_save, layer_replication, ...); names it.
    """
    file = folder / CONFIG_FILE
    fields = _read_object(file)
    _refuse_unsupported(file, fields)
    return AdapterConfig(
        file=file,
        base_name=str(fields.get("base_model_name_or_path") or ""),
        rank=_positive_int(file, "r", fields.get("r", 8)),
        alpha=_number(file, "lora_alpha", fields.get("lora_alpha", 8)),
        rank_pattern={
            key: _positive_int(file, f"rank_pattern.{key}", value)
            for key, value in _pattern(file, "rank_pattern", fields).items()
        },
        alpha_pattern={
            key: _number(file, f"alpha_pattern.{key}", value)
            for key, value in _pattern(file, "alpha_pattern", fields).items()
        },
        rslora=bool(fields.get("use_rslora", False)),
    )


def _read_object(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise AdapterFileError(file, error.strerror or "cannot be read") from error
    if len(content) > _MAX_BYTES:
        raise AdapterFileError(file, f"is larger than {_MAX_BYTES} bytes")
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AdapterFileError(file, f"is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise AdapterFileError(file, "is not a JSON object")
    return fields


def _refuse_unsupported(file: Path, fields: Mapping[str, Any]) -> None:
    kind = fields.get("peft_type")
    if kind != "LORA":
        raise AdapterConfigError(file, "peft_type", kind, "only 'LORA' adapters can be merged")
    bias = fields.get("bias", "none")
    if bias != "none":
        raise AdapterConfigError(file, "bias", bias, "only 'none' is supported")
    start = fields.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise AdapterConfigError(
            file, "init_lora_weights", start, "changes the base; convert it to a plain LoRA first"
        )
    for field, value in fields.items():
        # Fields of PEFT that are not named here, later ones among them, count as changing the
        # function unless they are switched off.
        if field not in _HARMLESS and value not in (None, False, "", 0) and value not in ([], {}):
            raise AdapterConfigError(file, field, value, "is not supported; it must be off")


def _pattern(file: Path, field: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    pattern = fields.get(field) or {}
    if not isinstance(pattern, dict):
        raise AdapterConfigError(file, field, pattern, "must be an object")
    for key in pattern:
        # The expressions come from outside: keep them from running for ever.
        if len(key) > _MAX_PATTERN or len(re.findall(r"[*+{]", key)) > _MAX_QUANTIFIERS:
            raise AdapterConfigError(file, field, key, "is too complicated an expression")
        try:
            re.compile(key)
        except re.error as error:
            raise AdapterConfigError(file, field, key, f"is no expression: {error}") from error
    return pattern


def _by_pattern(pattern: Mapping[str, T], module: str, default: T) -> T:
    """The value of the first key that matches the end of the module's name, as PEFT does it."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _positive_int(file: Path, field: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise AdapterConfigError(file, field, value, "must be a whole number of at least 1")
    return value


def _number(file: Path, field: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise AdapterConfigError(file, field, value, "must be a finite number")
    return float(value)
