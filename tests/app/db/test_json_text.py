"""The fast way to JSON is the usual one in all but its time."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.app.db.json_text import read, written

# Any text at all: lone surrogates too, which servers do send.
texts = st.text(st.characters(exclude_categories=()), max_size=6)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.sampled_from(["NaN", "-Infinity"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
)


@given(values)
def test_what_is_written_is_read_back_exactly_by_either(value: Any) -> None:
    text = written(value)

    assert repr(read(text)) == repr(json.loads(text)) == repr(value)


@given(values)
def test_what_pythons_module_wrote_is_read_the_same(value: Any) -> None:
    assert repr(read(json.dumps(value))) == repr(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        written({"losses": [0.5, number], "note": "NaN"})


@pytest.mark.parametrize("value", [object(), {"at": {1, 2}.__iter__}])
def test_what_has_no_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        written(value)
