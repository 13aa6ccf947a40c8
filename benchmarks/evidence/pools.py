"""What is measured on: a base, experts over it, and the rows of each expert's task."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Protocol

from benchmarks.repository import Members, open_repository
from evomerge.evaluation.example import Example

Part = Literal["search", "held_out"]
EXACT = "exact_match"
_EXTRACTION = {"ee": "item_f1", "re": "item_f1", "ner": "item_f1"}
# Six targets with relatives, one task of each sort, and the rest of the pool: chosen by hand
# before anything was merged.
REAL = Members(
    reported=(
        "re_conll04",
        "re_nyt",
        "ner_mit_movie",
        "ner_mit_restaurant",
        "glue_rte",
        "glue_qnli",
    ),
    choosing=("glue_cola", "ee_casie"),
    in_domain=("re_conll04", "ner_mit_movie", "ee_casie", "glue_sst2", "glue_qnli"),
    distractors=("re_nyt", "ner_mit_restaurant", "glue_cola", "glue_paraphrase", "glue_rte"),
)
# Rows at the end of a file that no expert of the real pool was trained on.
_UNSEEN, _UNSEEN_GLUE = 60, 25
_MIXED = "glue_mixed"
# How a prompt of the mixed file begins, by the expert that was trained on its kind.
GLUE_KINDS = {
    "glue_cola": "Please judge if the following sentence is grammatically",
    "glue_paraphrase": "Determine if the two sentences are paraphrases",
    "glue_qnli": "Based on the provided sentence, determine if it contains the",
    "glue_rte": "Given Sentence 1 as the premise, determine if Sentence 2",
    "glue_sst2": "Analyze the sentiment of the following sentence",
}


class PoolError(Exception):
    """A pool's files are missing or do not fit each other."""


class Rows(Protocol):
    """Where a task's rows come from."""

    def rows(self, task: str, split: Part) -> Sequence[Example]:
        """In their order; no prompt stands in both splits."""
        ...


@dataclass(frozen=True)
class Pool:
    """Experts over one base, each named by the task that it was trained on.

    Attributes:
        name: repository or real.
        digest: of everything that was trained; records of another digest are not used.
        base: folder of the base.
        experts: folder of each expert.
        members: who takes part in each setting.
        source: of the rows.
        reserved: experts that no out-of-domain target may use.
        encoding: fields of a job's objective that say how rows are written.
        metrics: of generated answers, by task; exact match where none is given. Names and numbers
            written out are right in parts: words shared, as F1.
    """

    name: str
    digest: str
    base: Path
    experts: Mapping[str, Path]
    members: Members
    source: Rows
    reserved: frozenset[str] = frozenset()
    encoding: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)

    def search(self, task: str, count: int, seed: int) -> list[Example]:
        """`count` rows to search on: the seed's own draw."""
        rows = list(self.source.rows(task, "search"))
        random.Random(f"{seed}:{task}").shuffle(rows)
        return rows[:count]

    def held_out(self, task: str, count: int) -> list[Example]:
        """The first `count` rows that nothing is chosen by, the same for every seed."""
        return list(self.source.rows(task, "held_out"))[:count]

    def metric(self, task: str) -> str:
        """Of the answers that a model writes."""
        return self.metrics.get(task, EXACT)


def open_pool(
    name: str, *, quick: bool, repository: Path | None, experts: Path | None, data: Path | None
) -> Pool:
    """The pool of that name.

    Args:
        quick: the small repository instead of the whole one.
        repository: its folder; by default where it is made.
        experts, data: folders of the real pool.

    Raises:
        PoolError: the real pool's folders were not given, or lack something.
        NotBuiltError: the repository is not there.
    """
    if name == "repository":
        return repository_pool(repository, quick=quick)
    if experts is None or data is None:
        raise PoolError("--pool real needs --experts DIR and --data DIR")
    return real_pool(experts, data)


def repository_pool(folder: Path | None = None, *, quick: bool) -> Pool:
    """The experts that `python -m benchmarks.repository` trains.

    Raises:
        NotBuiltError: it has not been run.
    """
    found = open_repository(folder, quick=quick)
    return Pool(
        name="quick repository" if quick else "repository",
        digest=found.folder.name,
        base=found.base,
        experts=found.experts,
        members=found.members,
        source=found,
        reserved=frozenset(found.members.targets),
        encoding={"max_new_tokens": 24},
        metrics=dict.fromkeys(found.experts, "token_f1"),
    )


def real_pool(experts: Path, data: Path, base: Path | None = None) -> Pool:
    """Adapters over SmolLM2-135M-Instruct, trained on extraction and on GLUE.

    Raises:
        PoolError: a folder or file is missing.
    """
    from examples.base import ensure_base

    folders = {path.name: path for path in sorted(experts.iterdir()) if path.is_dir()}
    source = RealRows(data)
    for name in sorted({*REAL.targets, *REAL.in_domain, *REAL.distractors} - set(folders)):
        raise PoolError(f"{experts}: holds no expert {name}")
    for name in folders:
        source.check(name)
    return Pool(
        name="real",
        digest=_digest([*folders.values()]),
        base=base or ensure_base(),
        experts=folders,
        members=REAL,
        source=source,
        encoding={"context_tokens": 320, "max_new_tokens": 48},
        metrics={name: _EXTRACTION.get(name.partition("_")[0], EXACT) for name in folders},
    )


@dataclass(frozen=True)
class RealRows:
    """Rows of the real pool: a file a task, but five kinds of GLUE in one."""

    folder: Path

    def check(self, task: str) -> None:
        """Refuse a task without rows.

        Raises:
            PoolError: its file is missing, or holds no such row.
        """
        if not self._all(task):
            raise PoolError(f"{self._file(task)}: holds no row of {task}")

    def rows(self, task: str, split: Part) -> list[Example]:
        """The last rows, which no expert has seen, are held out; those before are searched on."""
        rows = self._all(task)
        unseen = _UNSEEN_GLUE if task in GLUE_KINDS else _UNSEEN
        if split == "held_out":
            return rows[-unseen:]
        asked = {row.prompt for row in rows[-unseen:]}
        return [row for row in rows[:-unseen] if row.prompt not in asked]

    def _file(self, task: str) -> Path:
        return self.folder / f"{_MIXED if task in GLUE_KINDS else task}.jsonl"

    def _all(self, task: str) -> list[Example]:
        path = self._file(task)
        if not path.is_file():
            raise PoolError(f"{path}: there is no such file, which {task} needs")
        begin = GLUE_KINDS.get(task, "")
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = (json.loads(line) for line in lines)
        return [
            Example(row["prompt"], row["completion"])
            for row in rows
            if row["prompt"].startswith(begin)
        ]


def _digest(folders: Sequence[Path]) -> str:
    whole = sha256()
    for folder in folders:
        weights = (folder / "adapter_model.safetensors").read_bytes()
        whole.update(f"{folder.name} {sha256(weights).hexdigest()}\n".encode())
    return whole.hexdigest()[:16]
