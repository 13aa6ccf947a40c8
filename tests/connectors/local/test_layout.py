"""Laying out rows in lines."""

from __future__ import annotations

import pytest

from evomerge.connectors.local.layout import lay_out
from evomerge.connectors.local.rows import Row


def test_rows_in_one_line_follow_each_other_and_padding_the_last() -> None:
    layout = lay_out([[Row((1, 2, 3, 4), 2), Row((5, 6, 7), 1)], [Row((8, 9), 1)]])
    assert layout.tokens.tolist() == [[1, 2, 3, 5, 6], [8, 0, 0, 0, 0]]
    assert layout.positions is not None
    assert layout.positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]
    assert layout.scored.tolist() == [1, 2, 3, 4, 5]
    assert layout.targets.tolist() == [3, 4, 6, 7, 9]
    assert layout.counts == (2, 2, 1)


@pytest.mark.parametrize("rows", [1, 3])
def test_rows_in_lines_of_their_own_need_no_positions(rows: int) -> None:
    layout = lay_out([[Row(tuple(range(n + 2)), n + 1)] for n in range(rows)])
    assert layout.positions is None
    assert layout.tokens.shape == (rows, rows)
    assert layout.scored.tolist() == [n * rows + n for n in range(rows)]
    assert layout.targets.tolist() == [n + 1 for n in range(rows)]
