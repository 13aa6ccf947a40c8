"""Routing texts to clusters by their words."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.merging.forest.errors import ArgumentError, RouterFileError
from evomerge.merging.forest.router import Reading, Router, unit, words_of

WORDS = ("sea", "oven", "judge", "straße")


def make(temperature: float = 0.1) -> Router:
    random = np.random.default_rng(1)
    words = tuple(word.casefold() for word in WORDS)
    return Router(words, random.normal(size=(4, 3)), random.normal(size=(5, 3)), temperature)


ROUTER = make()
TEXTS = st.lists(st.sampled_from(["sea", "SEA ", " oven", "jud", "ge", ".", " x", "STRASSE", "ß"]))


def test_weights_are_of_the_distances_by_hand() -> None:
    text = "Sea, sea! The JUDGE and a judge, the sea"
    vector = (1 + np.log(3)) * ROUTER.directions[0] + (1 + np.log(2)) * ROUTER.directions[2]
    vector /= np.linalg.norm(vector)
    np.testing.assert_allclose(ROUTER.embed([text]), [vector])
    for temperature in (0.1, 2.0):
        weights = np.exp(-((vector - ROUTER.centres) ** 2).sum(axis=1) / temperature)
        np.testing.assert_allclose(
            np.exp(make(temperature).log_weights([text]))[0], weights / weights.sum()
        )


def test_words() -> None:
    assert words_of("A sea-bird's x2 _y Straße été 漢字") == [
        *("sea", "bird", "x2", "_y", "strasse", "été", "漢字")
    ]


@given(TEXTS)
def test_token_weights_are_those_of_what_stands_before(pieces: list[str]) -> None:
    found = ROUTER.token_log_weights(pieces)
    prefixes = ["".join(pieces[:t]) for t in range(len(pieces))]
    assert found.shape == (5, len(pieces))
    np.testing.assert_allclose(found.T, ROUTER.log_weights(prefixes).reshape(-1, 5), atol=1e-9)
    np.testing.assert_allclose(np.exp(found).sum(axis=0), np.ones(len(pieces)))


@given(TEXTS)
def test_reading_goes_on_like_the_whole(pieces: list[str]) -> None:
    reading = Reading(ROUTER)
    for piece in pieces:
        reading.observe(piece)
    whole = ROUTER.log_weights(["".join(pieces)])[0]
    np.testing.assert_allclose(reading.log_weights(), whole, atol=1e-9)


def test_without_a_known_word_all_are_alike() -> None:
    weights = np.exp(ROUTER.log_weights(["", "nothing known", "s e a"]))
    np.testing.assert_allclose(weights, np.full((3, 5), 0.2))
    assert not ROUTER.embed([""]).any()
    assert ROUTER.log_weights([]).shape == (0, 5)
    np.testing.assert_array_equal(unit(np.array([[1e-13, 0.0]])), [[0.0, 0.0]])


def test_far_away_at_any_temperature_there_are_no_nans() -> None:
    cold = Router(("sea",), np.ones((1, 1)), np.array([[1e6], [-1e6]]), 1e-9)
    np.testing.assert_array_equal(np.exp(cold.log_weights(["sea"])), [[1, 0]])


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    for temperature in (0.1, 0.2):
        router = make(temperature)
        router.save(tmp_path / "router")
        loaded = Router.load(tmp_path / "router")
        assert (loaded.words, loaded.temperature) == (router.words, temperature)
        np.testing.assert_array_equal(loaded.directions, router.directions)
        np.testing.assert_array_equal(loaded.centres, router.centres)
    assert [path.name for path in tmp_path.iterdir()] == ["router"]


def test_files_with_code_are_not_run(tmp_path: Path) -> None:
    ROUTER.save(tmp_path)
    arrays = tmp_path / "router.npz"
    evil = np.array([{"a": 1}], dtype=object)
    np.savez(arrays, directions=evil, centres=evil)
    with pytest.raises(RouterFileError, match=r"router\.npz.*allow_pickle"):
        Router.load(tmp_path)
    arrays.write_bytes(pickle.dumps({"directions": 1}))
    with pytest.raises(RouterFileError, match=r"router\.npz"):
        Router.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "version"),
        ({"words": "sea"}, "words"),
        ({"words": ["sea", 1, "a", "b"]}, "words"),
        ({"words": ["sea"]}, "directions"),
        ({"words": ["sea"] * 4}, "words"),
        ({"temperature": None}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
    ],
)
def test_refuses_heads_that_do_not_fit(
    tmp_path: Path, change: dict[str, object], reason: str
) -> None:
    ROUTER.save(tmp_path)
    head = tmp_path / "router.json"
    head.write_text(json.dumps(json.loads(head.read_text()) | change))
    with pytest.raises(RouterFileError, match=reason):
        Router.load(tmp_path)


def test_refuses_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(RouterFileError, match=r"router\.json"):
        Router.load(tmp_path)
    ROUTER.save(tmp_path)
    arrays = tmp_path / "router.npz"
    whole = arrays.read_bytes()
    values = ROUTER.directions.tobytes()
    changed = whole.replace(values, values[::-1])
    assert changed != whole
    for broken in (b"", b"nonsense", whole[: len(whole) // 2], changed):
        arrays.write_bytes(broken)
        with pytest.raises(RouterFileError, match=r"router\.npz"):
            Router.load(tmp_path)
    np.savez(arrays, directions=ROUTER.directions)
    with pytest.raises(RouterFileError, match="centres"):
        Router.load(tmp_path)
    np.savez(arrays, directions=np.zeros((4, 3), int), centres=ROUTER.centres)
    with pytest.raises(RouterFileError, match="floating"):
        Router.load(tmp_path)
    (tmp_path / "router.json").write_text("[]")
    with pytest.raises(RouterFileError, match="version"):
        Router.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("words", (("a", "a"), np.zeros((2, 1)), np.zeros((1, 1)))),
        ("directions", (("a",), np.zeros((2, 1)), np.zeros((1, 1)))),
        ("directions", (("a",), np.full((1, 1), np.nan), np.zeros((1, 1)))),
        ("centres", (("a",), np.zeros((1, 1)), np.zeros((1, 2)))),
        ("centres", (("a",), np.zeros((1, 1)), np.zeros((0, 1)))),
        ("centres", (("a",), np.zeros((1, 1)), np.zeros(1))),
        ("temperature", (("a",), np.zeros((1, 1)), np.zeros((1, 1)), -1.0)),
    ],
)
def test_refuses_parts_that_do_not_fit(field: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(ArgumentError, match=f"{field}="):
        Router(*arguments)  # type: ignore[arg-type]
