from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.connectors.shelf import Shelf
from evomerge.optimizers.candidate import Candidate, uniform


def write(candidate: Candidate, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "weights").write_text(str(candidate.beta.tolist()))


async def test_a_folder_is_there_for_the_block_and_its_name_is_free_again(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lambda candidate: "name", write)
    for _ in range(2):
        async with shelf.holding(uniform(2)) as folder:
            assert folder == tmp_path / "name-0"
            assert (folder / "weights").is_file()
        assert not folder.exists()


async def test_equal_candidates_have_folders_of_their_own(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, lambda candidate: "name", write)
    async with shelf.holding(uniform(2)) as one:
        async with shelf.holding(uniform(2)) as other:
            assert one != other
        assert one.is_dir()


async def test_nothing_is_left_of_what_could_not_be_written(tmp_path: Path) -> None:
    def fail(candidate: Candidate, folder: Path) -> None:
        folder.mkdir()
        raise OSError("full")

    shelf = Shelf(tmp_path, lambda candidate: "name", fail)
    with pytest.raises(OSError, match="full"):
        async with shelf.holding(uniform(2)):
            pass
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240
