"""YAML on disk, the same models as the HTTP bodies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from evomerge.app.cli.failures import InputError, faults
from evomerge.app.client import JobSpec
from evomerge.app.schemas.forest_specs import ForestJobSpec
from evomerge.app.schemas.spec import MergeJobSpec


class _Loader(yaml.SafeLoader):
    """Plain YAML, but a key that stands twice is an error instead of a silent loss."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


def load(path: Path) -> JobSpec:
    """Read a job file: a merge, or where it has a `type`, a job over a forest.

    Raises:
        OSError: it cannot be read.
        InputError: it is not YAML, or not a job; each line names the field and its value.
    """
    data = _yaml(path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: a job is a mapping of fields, got {type(data).__name__}")
    kind = ForestJobSpec if "type" in data else MergeJobSpec
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise InputError("\n".join(f"{path}: {line}" for line in faults(error, data))) from error


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read a mapping of fields, or a list of them; what they mean is for the server to check.

    Raises:
        OSError: it cannot be read.
        InputError: it is neither.
    """
    data = _yaml(path)
    records = data if isinstance(data, list) else [data]
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise InputError(
                f"{path}: entry {number} must be a mapping of fields, got {type(record).__name__}"
            )
    if not records:
        raise InputError(f"{path}: holds nothing")
    return records


def _yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
