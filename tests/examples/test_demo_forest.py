"""The forest demo's own parts: its jobs, what it deals and cuts, its workers, what it says."""

from __future__ import annotations

import io
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from examples.corpora import DOMAINS
from examples.documents import write
from rich.console import Console

from evomerge.app.schemas.forest_specs import ForestJobSpec
from evomerge.app.settings import Settings
from evomerge.evaluation.corpus import Corpus, Shares, documents
from examples import demo_forest, forest_table

SYSTEMS = ("seed", "ensemble:top-1", "ensemble:top-2", "ensemble:all")
AVERAGES = ("average:uniform", "average:posterior")
EVERY_DOMAIN = (*demo_forest.TRAINED, demo_forest.COMES, *demo_forest.UNSEEN)


class Queue:
    """Takes jobs in place of the service."""

    def __init__(self) -> None:
        self.specs: list[dict[str, Any]] = []

    async def submit(self, spec: dict[str, Any]) -> dict[str, str]:
        self.specs.append(ForestJobSpec.model_validate(spec).model_dump())
        return {"id": f"fj_{len(self.specs)}"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo's corpora, of a few documents that name their domain."""
    monkeypatch.chdir(tmp_path)
    home = demo_forest.DATA_DIR / demo_forest.CORPORA
    home.mkdir(parents=True)
    for name in DOMAINS:
        texts = [f"{name} {n} " + "and so on, " * 150 for n in range(60)]
        write(name, texts, home)
    return home


def texts_of(path: Path) -> list[str]:
    return [document.text for document in documents(Corpus("any", path))]


def test_its_domains_are_gathered_and_none_is_trained_on_twice() -> None:
    assert set(EVERY_DOMAIN) == set(DOMAINS)
    assert len(EVERY_DOMAIN) == len(DOMAINS)
    assert len(demo_forest.TRAINED) >= 4
    assert demo_forest.GOES in demo_forest.TRAINED
    assert demo_forest.TARGET in demo_forest.UNSEEN


def test_the_service_understands_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in demo_forest.environment().items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.roots == [demo_forest.DATA_DIR.absolute()]
    assert (settings.threads, settings.device) == (1, "cpu")


async def test_its_jobs_are_such_as_the_service_takes(folder: Path) -> None:
    queue: Any = Queue()
    await demo_forest.branch(queue, demo_forest.FOREST, demo_forest.COMES, "average")
    await demo_forest.evaluation(queue, demo_forest.FOREST, EVERY_DOMAIN, averages=["uniform"])
    architecture = {"architecture": demo_forest.ARCHITECTURE, "type": "train_seed"}
    corpora = [demo_forest.training(name) for name in demo_forest.TRAINED]
    recipe = demo_forest.recipe(demo_forest.SEED_TOKENS)
    await demo_forest.queued(queue, **architecture, corpora=corpora, recipe=recipe)
    branched, evaluated, seeded = queue.specs
    assert branched["start"] == "average"
    assert branched["corpus"]["path"] == str((folder / "cython.jsonl").absolute())
    shares = {name: seeded["recipe"][name] for name in demo_forest.SHARES}
    assert evaluated["shares"] == shares == demo_forest.SHARES
    assert seeded["recipe"]["tokens"] == demo_forest.SEED_TOKENS


def test_the_forest_and_what_it_is_compared_with_get_equal_tokens() -> None:
    batch = demo_forest.RECIPE["block_tokens"] * demo_forest.RECIPE["batch_blocks"]
    assert demo_forest.SEED_TOKENS % batch == demo_forest.ELM_TOKENS % batch == 0


def test_the_search_is_over_the_forest_and_scores_the_target() -> None:
    spec = demo_forest.merge_spec()
    assert (spec.pool, spec.space) == (demo_forest.FOREST, "checkpoint")
    assert [part.dataset for part in spec.objective.datasets] == [demo_forest.TARGET]


def test_a_random_split_deals_every_document_once(folder: Path) -> None:
    names = demo_forest.write_parts(folder)
    parts = [texts_of(folder / f"{name}.jsonl") for name in names]
    assert len(names) == len(demo_forest.TRAINED)
    dealt = sorted(text for part in parts for text in part)
    trained = [text for name in demo_forest.TRAINED for text in texts_of(folder / f"{name}.jsonl")]
    assert dealt == sorted(trained)
    for part in parts:
        assert {text.split()[0] for text in part} == set(demo_forest.TRAINED)


def test_the_search_scores_development_documents_alone(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "rows.jsonl"
    demo_forest.write_rows(folder, target)
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert rows
    shares = Shares(dev=demo_forest.SHARES["dev_share"], test=demo_forest.SHARES["test_share"])
    path = folder / f"{demo_forest.TARGET}.jsonl"
    development = [
        document.text
        for document in documents(Corpus("any", path))
        if shares.part(document.digest) == "dev"
    ]
    for row in rows:
        assert any(row["prompt"] + row["completion"] in text for text in development)


def test_the_second_worker_ends_with_its_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "ended"
    code = (
        "import pathlib, signal, sys\n"
        f"def end(*_): pathlib.Path({str(marker)!r}).touch(); sys.exit()\n"
        f"signal.signal({int(signal.SIGTERM)}, end)\n"
        f"pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "signal.pause()\n"
    )
    monkeypatch.setattr(demo_forest, "WORKER", [sys.executable, "-c", code])
    with demo_forest.second_worker({}, tmp_path / "log"):
        while not (tmp_path / "begun").exists():
            pass
        assert not marker.exists()
    assert marker.exists()


def found(**changed: float) -> forest_table.Rows:
    """All systems at a perplexity of 100 everywhere, but for those that are named."""

    def of(*models: str) -> dict[str, forest_table.Row]:
        return {model: dict.fromkeys(EVERY_DOMAIN, changed.get(model, 100.0)) for model in models}

    dense = {"seed": dict.fromkeys(EVERY_DOMAIN, changed.get("dense", 100.0))}
    split = {"ensemble:all": dict.fromkeys(EVERY_DOMAIN, changed.get("random", 100.0))}
    return forest_table.rows(
        of(*SYSTEMS, *AVERAGES), split, dense, of("ensemble:all"), of("elm:merged")
    )


def test_perplexities_are_taken_out_of_an_evaluation() -> None:
    line = {"model": "seed", "domains": {"python": {"perplexity": 7.5, "interval": None}}}
    result = {"evaluation": {"models": [line]}}
    assert demo_forest.perplexities(result) == {"seed": {"python": 7.5}}


def test_a_group_is_the_geometric_mean_of_its_domains() -> None:
    rows = {"one": {"a": 2.0, "b": 8.0}}
    assert forest_table.means(rows, {"both": ["a", "b"]})["one"]["both"] == pytest.approx(4.0)


def test_the_tables_hold_every_system_and_domain() -> None:
    out = io.StringIO()
    console = Console(file=out, width=80)
    rows = found(dense=87.5)
    for table in forest_table.tables(rows, EVERY_DOMAIN, demo_forest.GROUPS):
        console.print(table)
    text = out.getvalue()
    assert "…" not in text
    for name in (*rows, *EVERY_DOMAIN, *demo_forest.GROUPS):
        assert name in text
    assert "87.5" in text


def test_the_verdicts_say_it_either_way() -> None:
    def said(**changed: float) -> str:
        lines = forest_table.verdicts(found(**changed), demo_forest.GROUPS, demo_forest.TARGET)
        return "\n".join(lines)

    assert "trained domains: is ahead, 100.0 against 120.0" in said(dense=120.0)
    assert "random split, trained domains: is NOT ahead, 100.0 against 90.0" in said(random=90.0)
    assert "Evo-Merged against uniform, manual: is ahead, 80.0 against 100.0" in said(
        **{"elm:merged": 80.0}
    )
