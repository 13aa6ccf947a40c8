"""Groups of neighbouring layers."""

from __future__ import annotations

import pytest

from evomerge.merging.errors import LayerGroupsError
from evomerge.merging.layers import layer_groups


@pytest.mark.parametrize(
    ("layers", "groups", "expected"),
    [
        (4, 1, [0, 0, 0, 0]),
        (4, 2, [0, 0, 1, 1]),
        (5, 2, [0, 0, 0, 1, 1]),
        (3, 3, [0, 1, 2]),
        (30, 4, [0] * 8 + [1] * 7 + [2] * 8 + [3] * 7),
    ],
)
def test_layers_are_cut_into_contiguous_groups(
    layers: int, groups: int, expected: list[int]
) -> None:
    modules = [f"model.layers.{layer}.mlp.up_proj" for layer in range(layers)]
    found = layer_groups([*modules, "lm_head"], groups)
    assert [found[module] for module in modules] == expected
    assert found["lm_head"] == groups - 1


@pytest.mark.parametrize("groups", [0, 4])
def test_refuses_groups_without_layers(groups: int) -> None:
    modules = [f"model.layers.{layer}.mlp.up_proj" for layer in range(3)]
    with pytest.raises(LayerGroupsError, match=f"groups={groups}: must be 1 to 3"):
        layer_groups(modules, groups)
