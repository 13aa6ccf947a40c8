"""Each document's content says whether it trains, develops or tests."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.evaluation.corpus import ShareError, Shares


def digest(text: str) -> bytes:
    return sha256(text.encode()).digest()


@given(
    dev=st.floats(0, 0.49),
    test=st.floats(0, 0.49),
    texts=st.lists(st.text(), min_size=1, unique=True),
    more=st.lists(st.text()),
)
def test_more_documents_move_none(
    dev: float, test: float, texts: list[str], more: list[str]
) -> None:
    shares = Shares(dev, test)
    before = {text: shares.part(digest(text)) for text in texts}
    after = {text: shares.part(digest(text)) for text in [*more, *texts]}
    assert {text: after[text] for text in texts} == before


@given(text=st.text(), dev=st.floats(0, 0.3), more=st.floats(0, 0.3), test=st.floats(0, 0.3))
def test_a_larger_development_share_keeps_the_smaller_one_and_the_test(
    text: str, dev: float, more: float, test: float
) -> None:
    small = Shares(dev, test).part(digest(text))
    large = Shares(dev + more, test).part(digest(text))
    assert (small == "test") == (large == "test")
    assert small != "dev" or large == "dev"


def test_shares_hold_on_average() -> None:
    shares = Shares(dev=0.2, test=0.1)
    parts = [shares.part(digest(str(n))) for n in range(10_000)]
    assert parts.count("dev") == pytest.approx(2000, abs=160)
    assert parts.count("test") == pytest.approx(1000, abs=120)


def test_shares_of_nothing_leave_everything_to_train_on() -> None:
    shares = Shares(dev=0, test=0)
    assert {shares.part(digest(str(n))) for n in range(100)} == {"train"}
    assert shares.part(bytes(32)) == "train"


@pytest.mark.parametrize(
    ("dev", "test", "said"),
    [
        (-0.1, 0.1, r"dev_share=-0\.1"),
        (0.1, 1.0, r"test_share=1\.0"),
        (float("nan"), 0.1, "dev_share=nan"),
        (0.5, 0.5, r"dev_share=0\.5: leaves nothing to train on"),
    ],
)
def test_shares_out_of_range_are_refused(dev: float, test: float, said: str) -> None:
    with pytest.raises(ShareError, match=said):
        Shares(dev, test)
