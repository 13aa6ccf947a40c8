"""Which layer a module or tensor belongs to, and groups of neighbouring layers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from evomerge.merging.errors import LayerGroupsError

_LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def layer_groups(names: Iterable[str], groups: int) -> dict[str, int]:
    """Cut the layers into contiguous groups of nearly equal size.

    What is named belongs to the group of its layer ("layers.<i>." in its name); what is outside
    of every layer, such as lm_head, to the last group.

    Raises:
        LayerGroupsError: fewer than one group, or more than there are layers.
    """
    numbers = {name: layer_of(name) for name in names}
    layers = sorted({layer for layer in numbers.values() if layer is not None})
    if not 1 <= groups <= max(1, len(layers)):
        raise LayerGroupsError(groups, len(layers))
    place = {layer: index * groups // len(layers) for index, layer in enumerate(layers)}
    return {name: groups - 1 if layer is None else place[layer] for name, layer in numbers.items()}


def layer_of(name: str) -> int | None:
    """The number of the layer that a module or tensor is in; None if it is in none."""
    found = _LAYER.search(name + ".")
    return int(found.group(1)) if found else None
