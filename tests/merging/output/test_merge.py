"""A finished merge as it is stored."""

from __future__ import annotations

import json

import numpy as np
import pytest

from evomerge.merging.output.errors import StoredMergeError
from evomerge.merging.output.merge import OutputMerge

ITEMS = OutputMerge(
    "extraction", "item_f1", ("a", "b", "c"), (1.0, 0.3, 0.01), (0.5, -0.2, 1.0), 0.35,
    answer_format="lines",
)  # fmt: skip
CHOICE = OutputMerge(
    "choice", "cross_entropy", ("a", "b"), (1.0, 1.0), (0.5, 0.5), head=0.2, choices=("yes", "no")
)
TEXT = OutputMerge("scored_text", "cross_entropy", ("a", "b"), (1.0, 1.0), (0.5, -0.5))


@pytest.mark.parametrize("merge", [ITEMS, CHOICE, TEXT], ids=lambda merge: merge.kind)
def test_what_is_stored_is_read_back_through_json(merge: OutputMerge) -> None:
    written = json.dumps(merge.to_json(), allow_nan=False)
    assert OutputMerge.from_json(json.loads(written)) == merge


def test_who_is_called() -> None:
    np.testing.assert_array_equal(ITEMS.kept, [True, True, False])
    np.testing.assert_array_equal(CHOICE.kept, [True, True])
    np.testing.assert_array_equal(TEXT.kept, [True, False])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", 2),
        ("kind", "guess"),
        ("kind", None),
        ("experts", "abc"),
        ("experts", [1, 2, 3]),
        ("alpha", [1.0, 0.3]),
        ("alpha", [1.0, 0.3, 1.5]),
        ("alpha", [True, 0.3, 0.5]),
        ("beta", [1.0, 0.3, "x"]),
        ("beta", [1.0, 0.3, float("nan")]),
        ("threshold", None),
        ("threshold", 0.0),
        ("threshold", 1.2),
        ("head", -0.1),
        ("answer_format", "xml"),
        ("choices", "yes"),
    ],
)
def test_refuses_what_is_no_merge_and_names_the_field(field: str, value: object) -> None:
    with pytest.raises(StoredMergeError, match=field):
        OutputMerge.from_json({**ITEMS.to_json(), field: value})


@pytest.mark.parametrize("field", list(ITEMS.to_json()))
def test_refuses_what_lacks_a_field(field: str) -> None:
    stored = ITEMS.to_json()
    del stored[field]
    with pytest.raises(StoredMergeError, match=field):
        OutputMerge.from_json(stored)


def test_only_extraction_has_a_threshold() -> None:
    with pytest.raises(StoredMergeError, match="threshold"):
        OutputMerge("choice", "cross_entropy", ("a",), (1.0,), (1.0,), 0.5)
