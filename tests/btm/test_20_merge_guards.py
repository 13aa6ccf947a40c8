"""Feature 20: mismatched keys, vocabulary or lineage are refused, and nothing is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.support.elms import make_elm, rewrite, tensors_of
from tests.support.tiny import make_base

from evomerge.merging.checkpoint.average import average
from evomerge.merging.checkpoint.errors import (
    KeysError,
    LineageError,
    MismatchError,
    VocabularyError,
)
from evomerge.merging.checkpoint.merge import merge
from evomerge.optimizers.candidate import uniform

Combine = Callable[[Path, Sequence[Path], Path], None]


def mismatched_keys(folder: Path, elm: Path) -> Path:
    shutil.copytree(elm, folder)
    rewrite(folder, {k: v for k, v in tensors_of(elm).items() if k != "model.norm.weight"})
    return folder


def another_vocabulary(folder: Path, elm: Path) -> Path:
    shutil.copytree(elm, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["A"], content["model"]["vocab"]["B"] = (
        content["model"]["vocab"]["B"],
        content["model"]["vocab"]["A"],
    )
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def another_lineage(folder: Path, elm: Path) -> Path:
    return make_elm(folder, make_base(folder.parent / "other seed", seed=9), 1)


def averaged(seed: Path, elms: Sequence[Path], out: Path) -> None:
    average(elms, np.full(len(elms), 1 / len(elms)), out)


def merged(seed: Path, elms: Sequence[Path], out: Path) -> None:
    merge(seed, elms, uniform(len(elms)), out)


@pytest.mark.parametrize("combine", [averaged, merged])
@pytest.mark.parametrize(
    ("odd", "kind", "reason"),
    [
        (mismatched_keys, KeysError, r"tensor 'model\.norm\.weight' is missing"),
        (another_vocabulary, VocabularyError, "tokenizer"),
        (another_lineage, LineageError, "lineage"),
    ],
)
def test_what_does_not_belong_is_refused(
    tmp_path: Path,
    combine: Combine,
    odd: Callable[[Path, Path], Path],
    kind: type[MismatchError],
    reason: str,
) -> None:
    seed = make_base(tmp_path / "seed")
    elm = make_elm(tmp_path / "elm", seed, 1)
    stranger = odd(tmp_path / "stranger", elm)
    with pytest.raises(kind, match=f"ELM 'stranger' does not fit '(elm|seed)': {reason}"):
        combine(seed, [elm, stranger], tmp_path / "out")
    assert not (tmp_path / "out").exists()
