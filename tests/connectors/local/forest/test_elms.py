"""ELMs in memory: of one vocabulary, unchanged, and no more at once than may be."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.tiny import make_base

from evomerge.connectors.local.errors import BaseFolderError
from evomerge.connectors.local.forest import elms as module
from evomerge.connectors.local.forest.elms import Elm, Elms
from evomerge.connectors.local.forest.errors import (
    ElmChangedError,
    ElmMismatchError,
    ElmsTooLargeError,
)
from evomerge.connectors.local.headers import content_hash
from evomerge.merging.forest.errors import ArgumentError


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders that were loaded, in order."""
    names: list[str] = []
    load = module.load_base

    def noting(folder: Path, **options: object) -> object:
        names.append(folder.name)
        return load(folder, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "load_base", noting)
    return names


def forest(folders: dict[str, Path], **options: int) -> Elms:
    return Elms([Elm(*one) for one in folders.items()], device="cpu", threads=1, **options)


def size(elms: Elms) -> int:
    return sum(each.numel() * 4 for each in elms.model(0).model.parameters())


def test_an_elm_is_loaded_once_and_when_it_is_read(
    folders: dict[str, Path], loaded: list[str]
) -> None:
    elms = forest(folders)
    assert loaded == []
    assert elms.model(1) is elms.model(1)
    assert elms.any() is elms.model(1)
    assert [base.name for base in elms.models()] == list(elms.names)
    assert sorted(loaded) == sorted(folders)


def test_no_more_are_held_than_may_be(folders: dict[str, Path], loaded: list[str]) -> None:
    room = 2 * size(forest(folders))
    loaded.clear()
    elms = forest(folders, memory_bytes=room)
    for place in (0, 1, 0, 2, 0, 1):
        elms.model(place)
    assert loaded == ["ada", "bob", "cyd", "bob"]
    assert len(elms.models([0, 1])) == 2
    with pytest.raises(ElmsTooLargeError, match=f"3 ELMs take {room // 2 * 3} bytes.*{room} are"):
        elms.models()


def test_one_may_always_be_held(folders: dict[str, Path], loaded: list[str]) -> None:
    elms = forest(folders, memory_bytes=1)
    assert elms.model(0).name == "ada"
    assert elms.model(2).name == "cyd"
    assert elms.model(0).name == "ada"
    assert loaded == ["ada", "cyd", "ada"]


def test_what_another_forest_holds_of_the_same_files_is_not_loaded_again(
    folders: dict[str, Path], loaded: list[str]
) -> None:
    known = [Elm(name, folder, content_hash(folder)) for name, folder in folders.items()]
    before = Elms(known, device="cpu", threads=1)
    held = before.models([0, 2])
    loaded.clear()
    after = Elms([*known[1:], replace(known[0], name="new")], device="cpu", threads=1)
    after.take_over(before)
    assert after.model(1) is held[1]
    assert loaded == []
    after.models()
    assert loaded == ["bob", "ada"]


def test_files_that_have_changed_are_refused(folders: dict[str, Path]) -> None:
    folder = folders["ada"]
    right = Elm("ada", folder, content_hash(folder))
    assert Elms([right], threads=1).model(0).content_hash == right.content_hash
    with pytest.raises(ElmChangedError, match=r"'ada'.*have changed"):
        Elms([Elm("ada", folder, "0" * 64)], threads=1).model(0)


def test_another_vocabulary_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(make_base(tmp_path / "made"), other)
    tokenizer = other / "tokenizer.json"
    text = tokenizer.read_text()
    assert '"add_prefix_space":false' in text.replace(" ", "")
    tokenizer.write_text(text.replace('"add_prefix_space": false', '"add_prefix_space": true'))
    elms = Elms([Elm("ada", folders["ada"]), Elm("odd", other)], threads=1)
    elms.model(0)
    with pytest.raises(ElmMismatchError, match="'odd' has another vocabulary than 'ada'"):
        elms.model(1)


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaseFolderError, match=r"no config\.json"):
        Elms([Elm("nothing", tmp_path)]).model(0)


def test_a_forest_has_elms_of_different_names(folders: dict[str, Path]) -> None:
    for names in ([], ["one", "one"]):
        with pytest.raises(ArgumentError, match="different ELMs, at least one"):
            Elms([Elm(name, folders["ada"]) for name in names])
