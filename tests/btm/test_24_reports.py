"""Feature 24: perplexity per domain, over trained and unseen domains and all; the prior that
weighs the ELMs never reads a test document; a sweep over the seed's share.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.app.api.client import Json
from tests.support.corpora import sentences
from tests.support.databases import sqlite_url
from tests.support.forest_jobs import BATCH, RECIPE, SHARES, Plantation, plantation, recipe
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.evaluation.corpus import Corpus, Shares, documents
from evomerge.evaluation.perplexity import seed_share_sweep, table

DOMAINS = ("north", "south", "west")


@pytest.fixture
async def farm(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Plantation]:
    shutil.copy(sqlite_template, tmp_path)
    async with plantation(tmp_path, sqlite_url(tmp_path)) as farm:
        yield farm


async def grown(farm: Plantation) -> list[Json]:
    """A seed on two domains and an ELM on each; the results."""
    rate = recipe(tokens=40 * BATCH, learning_rate=1e-2)
    seed = await farm.run(farm.seed_spec("north", "south", recipe=recipe(tokens=20 * BATCH)))
    elms = [
        await farm.run(farm.branch_spec(domain, start="seed", recipe=rate))
        for domain in ("north", "south")
    ]
    return [seed, *elms]


def by_hand(folder: Path, texts: list[str]) -> tuple[float, int]:
    """Nats and tokens of texts by transformers alone, each in windows of the context."""
    words = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    context = model.config.max_position_embeddings
    nats, count = 0.0, 0
    for text in texts:
        ids = [words.eos_token_id, *words(text).input_ids]
        for begin in range(0, len(ids) - 1, context):
            window = torch.tensor([ids[begin : begin + context + 1]])
            with torch.no_grad():
                logits = model(window[:, :-1]).logits[0]
            nats += float(functional.cross_entropy(logits, window[0, 1:], reduction="sum"))
            count += window.shape[1] - 1
    return nats, count


async def test_a_report_is_what_transformers_says_of_each_document(farm: Plantation) -> None:
    seed, north, _ = await grown(farm)
    report = (await farm.run(farm.evaluate_spec(*DOMAINS)))["evaluation"]
    lines = {line["model"]: line for line in report["models"]}
    shares = Shares(dev=SHARES["dev_share"], test=SHARES["test_share"])
    for model, made in (("seed", seed), ("elm:north", north)):
        losses = []
        for domain in DOMAINS:
            corpus = Corpus(domain, farm.root / f"{domain}.jsonl")
            texts = [d.text for d in documents(corpus) if shares.part(d.digest) == "test"]
            nats, tokens = by_hand(farm.elm_folder(made), texts)
            losses.append(nats / tokens)
            found = lines[model]["domains"][domain]["perplexity"]
            assert found == pytest.approx(math.exp(nats / tokens), rel=1e-4)
        groups = {"trained": losses[:2], "unseen": losses[2:], "all": losses}
        for group, some in groups.items():
            expected = math.exp(sum(some) / len(some))
            assert lines[model][group]["perplexity"] == pytest.approx(expected, rel=1e-4)
            assert lines[model][group]["domains"] == len(some)


async def test_rows_that_are_known_to_agree(farm: Plantation) -> None:
    await grown(farm)
    report = (await farm.run(farm.evaluate_spec(*DOMAINS)))["evaluation"]
    lines = {line["model"]: line for line in report["models"]}
    for domain in report["domains"]:
        name = domain["domain"]
        assert sum(domain["prior"].values()) == pytest.approx(1)
        best = max(domain["prior"], key=domain["prior"].__getitem__)
        # Each ELM was trained on what it is asked about, and its posterior says so.
        if domain["trained"]:
            assert best == name
        assert lines["average:argmax"]["domains"][name] == lines[f"elm:{best}"]["domains"][name]
        ensemble = lines["ensemble:all"]["domains"][name]["perplexity"]
        alone = [lines[f"elm:{elm}"]["domains"][name]["perplexity"] for elm in ("north", "south")]
        assert ensemble <= max(alone)
        interval = lines["ensemble:all"]["domains"][name]["interval"]
        assert interval["low"] <= ensemble <= interval["high"]
    # Of two ELMs, a top-2 is the ensemble of all, and stands there once.
    assert "ensemble:top-2" not in lines


async def test_no_test_document_moves_a_prior(farm: Plantation) -> None:
    await grown(farm)
    first = (await farm.run(farm.evaluate_spec("north", "west")))["evaluation"]
    shares = Shares(dev=SHARES["dev_share"], test=SHARES["test_share"])
    # Other test documents, of another language; those that train and develop stay.
    own, other = farm.root / "west.jsonl", farm.root / "west-tested.jsonl"
    texts = [json.loads(line)["text"] for line in own.read_text().splitlines()]
    kept = [d.text for d in documents(Corpus("west", own)) if shares.part(d.digest) != "test"]
    assert len(kept) < len(texts)
    foreign = [d for d in sentences("north", 400) if shares.part(_digest(d)) == "test"]
    other.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*kept, *foreign]))
    spec = farm.evaluate_spec("north")
    spec["corpora"].append({"domain": "west", "path": str(other)})
    second = (await farm.run(spec))["evaluation"]
    assert [one["prior"] for one in second["domains"]] == [one["prior"] for one in first["domains"]]
    before, after = (
        {line["model"]: line["domains"]["west"]["perplexity"] for line in one["models"]}
        for one in (first, second)
    )
    assert all(before[model] != after[model] for model in before)
    weighed = [
        await farm.run(
            {
                "type": "average",
                "forest": "grove",
                "weights": "posterior",
                "corpus": {"domain": "west", "path": str(path)},
                "shares": SHARES,
            }
        )
        for path in (own, other)
    ]
    assert weighed[0]["average"] == weighed[1]["average"]
    assert weighed[0]["average"]["weights"] == first["domains"][1]["prior"]


async def test_documents_that_trained_cannot_test(farm: Plantation) -> None:
    await grown(farm)
    spec = farm.evaluate_spec("north", shares={"dev_share": 0.2, "test_share": 0.3})
    response = await farm.api.post("/v1/forest_jobs", spec)
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("shares", "trained_on")


async def test_a_budget_leaves_whole_domains_out(farm: Plantation) -> None:
    await grown(farm)
    whole = (await farm.run(farm.evaluate_spec(*DOMAINS)))["evaluation"]
    spec = farm.evaluate_spec(*DOMAINS, budget={"tokens": whole["tokens"] - 1})
    cut = await farm.run(spec)
    assert cut["ended_by"] == "tokens"
    assert cut["evaluation"]["domains"] == whole["domains"][:2]
    rows = {line["model"]: line["domains"] for line in whole["models"]}
    for line in cut["evaluation"]["models"]:
        assert line["domains"] == {name: rows[line["model"]][name] for name in DOMAINS[:2]}
    error = await farm.fails({**spec, "budget": {"tokens": 10}})
    assert (error["code"], error["param"]) == ("budget_too_small", "budget.tokens")


async def test_a_report_tells_the_seed_s_share_for_a_sweep(farm: Plantation) -> None:
    await grown(farm)
    report = (await farm.run(farm.evaluate_spec("north")))["evaluation"]
    steps = RECIPE["tokens"] // BATCH
    assert steps == 12
    assert report["seed_share"] == pytest.approx(20 / (20 + 40 + 40))
    tokens = {"north": np.ones(3)}
    tables = [
        (share, table({"ensemble:all": {"north": np.full(3, loss)}}, tokens, ["north"], seed=1))
        for share, loss in ((report["seed_share"], 2.0), (0.8, 3.0), (0.0, 4.0))
    ]
    points = seed_share_sweep(tables, "ensemble:all")
    assert [point.seed_share for point in points] == [0.0, report["seed_share"], 0.8]
    values = [point.trained.value for point in points]
    assert values == pytest.approx([math.exp(4), math.exp(2), math.exp(3)])


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
