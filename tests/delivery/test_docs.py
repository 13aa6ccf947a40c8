"""The docs say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from docs.generate import PAGES, renewed

from evomerge.app.schemas.forest_specs import ForestJobSpec
from evomerge.app.schemas.spec import MergeJobSpec

ROOT = Path(__file__).parents[2]
WRITTEN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_generated_pages_are_up_to_date(page: Path) -> None:
    assert page.read_text() == renewed(page.read_text(), PAGES[page]()), (
        "run: python docs/generate.py"
    )


def blocks(language: str) -> list[tuple[str, str]]:
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page.name, text) for page in WRITTEN for text in fence.findall(page.read_text())]


def test_every_job_in_the_docs_is_a_valid_spec() -> None:
    jobs = [
        (page, loaded)
        for page, text in blocks("yaml")
        if isinstance(loaded := yaml.safe_load(text), dict) and "objective" in loaded
    ]
    assert jobs
    for _, job in jobs:
        MergeJobSpec.model_validate(job)


def test_every_forest_job_in_the_docs_is_a_valid_spec() -> None:
    jobs = [
        loaded
        for _, text in blocks("yaml")
        if isinstance(loaded := yaml.safe_load(text), dict) and "type" in loaded
    ]
    assert {job["type"] for job in jobs} == {
        "train_seed",
        "branch_train",
        "cluster",
        "average",
        "evaluate",
    }
    for job in jobs:
        ForestJobSpec.model_validate(job)


def test_links_between_pages_lead_somewhere() -> None:
    for page in WRITTEN:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
