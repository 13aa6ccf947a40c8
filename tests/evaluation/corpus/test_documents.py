"""Files in, documents out; every error with its file and line."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from evomerge.evaluation.corpus import (
    Corpus,
    CorpusError,
    Document,
    DocumentError,
    DomainError,
    EmptyDomainError,
    check_domains,
    documents,
)


def read(path: Path, limit: int = 2**20) -> list[Document]:
    return list(documents(Corpus("d", path), limit))


def texts(path: Path) -> list[str]:
    return [document.text for document in read(path)]


def test_each_text_file_of_a_folder_is_a_document_in_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.py").write_text("x = 1\n\ny = 2\n")
    (tmp_path / "a.txt").write_text("first\n\nstill first\n")
    (tmp_path / "c.jsonl").write_text('{"text": "third"}\n{"text": "fourth", "id": 7}\n')
    (tmp_path / ".hidden").write_text("no")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("no")
    assert texts(tmp_path) == [
        "first\n\nstill first\n",
        "x = 1\n\ny = 2\n",
        "third",
        "fourth",
    ]


def test_a_single_text_file_is_cut_at_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "all.txt"
    file.write_bytes(b"\xef\xbb\xbf\n\none\nmore\n \t\r\n\ntwo \n\n\n")
    first, second = read(file)
    assert (first.text, first.line) == ("one\nmore\n", 3)
    assert (second.text, second.line) == ("two \n", 7)


def test_rows_of_jsonl_have_the_lines_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('\n{"text": "a"}\n\n{"text": " "}\n{"text": "b\\n\\nc"}')
    assert [(each.text, each.line) for each in read(file)] == [("a", 2), ("b\n\nc", 5)]


def test_the_digest_is_that_of_the_text(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "naïve"}))
    [document] = read(file)
    assert document.digest == sha256("naïve".encode()).digest()


@pytest.mark.parametrize(
    ("name", "content", "where", "reason"),
    [
        ("bad.jsonl", b'{"text": "a"}\n{"text": "\xff"}\n', 2, r"byte 11 \(0xff\) is not UTF-8"),
        ("bad.txt", b"one\n\ntwo\nth\xe9ee\n", 4, r"byte 3 \(0xe9\) is not UTF-8"),
        ("bad.jsonl", b'{"text": "a"}\n\n{"text": \n', 3, "is not JSON"),
        ("bad.jsonl", b"[1]\n", 1, "must be an object, got list"),
        ("bad.jsonl", b'{"txt": "a"}', 1, "text: must be a string, got null; fields seen: 'txt'"),
        ("bad.jsonl", b'{"text": 3}', 1, "text: must be a string, got number 3"),
        ("bad.jsonl", b'{"text": "ab\\ud800"}', 1, "text: is not Unicode at character 3"),
        ("bad.jsonl", b'{"text": "' + b"a" * 2**20 + b'"}', 1, "the line is longer than 1048576"),
        ("bad.txt", b"one\n\n" + b"a" * 2**21, 3, "the line is longer than 1048576"),
        ("bad.txt", b"one\n\n" + b"a" * 1023 + b"\n" + b"aaa\n" * 2**18, 3, "the document is long"),
    ],
)
def test_errors_name_file_and_line(
    tmp_path: Path, name: str, content: bytes, where: int, reason: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(DocumentError, match=reason) as caught:
        read(file)
    assert (caught.value.file, caught.value.line) == (file, where)
    assert str(caught.value).startswith(f"{file}, line {where}: ")


def test_errors_of_a_file_in_a_folder_name_it(tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "poor.txt").write_bytes(b"fine\nnot \x80\n")
    with pytest.raises(DocumentError, match=r"poor\.txt, line 2: byte 5 \(0x80\)"):
        read(tmp_path)
    (tmp_path / "poor.txt").write_bytes(b"a" * (2**20 + 1))
    with pytest.raises(DocumentError, match=r"poor\.txt: the document is longer than 1048576"):
        read(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "real.txt").write_text("fine")
    (folder / "also.txt").symlink_to(folder / "real.txt")
    assert texts(folder) == ["fine", "fine"]
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DocumentError, match=r"link\.txt: is a link that leads out of the corpus"):
        read(folder)


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="nowhere: there is no such file or folder"):
        read(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [None, "", "\n \n\t\n"])
def test_a_domain_without_a_document_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "blank.txt").write_text(content)
    with pytest.raises(EmptyDomainError, match=r"domain 'd': .* holds no document"):
        read(tmp_path)


def test_a_line_of_200_megabytes_is_refused_without_being_held(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    with file.open("wb") as stream:
        for _ in range(200):
            stream.write(b"a" * 2**20)
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from evomerge.evaluation.corpus import Corpus, DocumentError, documents\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try:\n"
        "    list(documents(Corpus('d', Path(sys.argv[1]))))\n"
        "except DocumentError as error:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True
    )
    grown, said = done.stdout.split(" ", 1)
    assert said == f"{file}, line 1: the line is longer than 16777216 bytes\n"
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(grown) * unit < 64 * 2**20


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 129])
def test_names_of_domains_are_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(DomainError, match="domain="):
        Corpus(name, tmp_path)


def test_no_domain_and_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match="at least one domain is needed"):
        check_domains([])
    twice = [Corpus("a", tmp_path), Corpus("b", tmp_path), Corpus("a", tmp_path / "x")]
    with pytest.raises(DomainError, match="domain='a': stands more than once"):
        check_domains(twice)


def test_all_errors_are_of_one_tree() -> None:
    assert issubclass(DocumentError, CorpusError)
    assert issubclass(DomainError, CorpusError)
    assert issubclass(EmptyDomainError, CorpusError)
