"""The demo's domains are there, distinct, and readable as corpora."""

from __future__ import annotations

from pathlib import Path

import pytest
from examples.documents import REPEATABLE, Gathered

from evomerge.evaluation.corpus import Corpus, documents
from examples import corpora


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Gathered]:
    return corpora.gather(tmp_path_factory.mktemp("corpora"), characters=60_000)


def test_every_domain_has_documents(gathered: dict[str, Gathered]) -> None:
    assert list(gathered) == list(corpora.DOMAINS)
    for name, one in gathered.items():
        assert one.documents >= 3
        assert 20_000 < one.characters <= 60_000
        read = [document.text for document in documents(Corpus(name, one.path))]
        assert len(read) == one.documents
        assert sum(map(len, read)) == one.characters


def test_no_two_domains_share_a_paragraph(gathered: dict[str, Gathered]) -> None:
    owners: dict[str, str] = {}
    for name, one in gathered.items():
        for document in documents(Corpus(name, one.path)):
            # The last paragraph may be cut.
            for part in document.text.split("\n\n")[:-1]:
                if sum(map(str.isalnum, part)) >= REPEATABLE:
                    assert owners.setdefault(part, name) == name


def test_docstrings_are_of_what_others_may_call(tmp_path: Path) -> None:
    source = f'class A:\n    """{"x" * 500}"""\n    def f(self):\n        """{"y" * 500}"""\n'
    assert [text.split()[0] for text in corpora._docstrings(source)] == ["A", "f"]
