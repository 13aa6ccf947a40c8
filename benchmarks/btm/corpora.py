"""Real text of distinct domains: Python's own sources, and packages of Debian's archive.

    python -m benchmarks.btm.corpora [--folder ~/.cache/evomerge/corpora/debian]

The packages are fetched with `apt-get download` and unpacked with `dpkg-deb -x` below the folder,
so neither needs root, and nothing is installed. Prints what each domain holds.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.btm.readers import (
    chapters,
    dictionary_entries,
    html_text,
    pod_text,
    quotations,
    r_strings,
    roff_text,
    spdx_text,
)
from examples.base import cache_dir
from examples.corpora import python_code
from examples.documents import Distinct, Gathered, grouped, read, table, write

CHARACTERS = 4_000_000  # of a domain, at most
_GROUP = 2500  # characters of a document that is made of short pieces
_UNPACKED = "packages"

Texts = Iterable[str]


class CorporaError(Exception):
    """A package could not be got; the message says which and why."""


def _licences(root: Path) -> Iterator[str]:
    yield from read(sorted((root / "base-files/usr/share/common-licenses").glob("*")))
    vendored = root / "ruby-licensee/usr/share/rubygems-integration/all/gems"
    for text in read(sorted(vendored.rglob("license-list-XML/src/*.xml"))):
        yield spdx_text(text)
    for text in read(sorted(vendored.rglob("choosealicense.com/_licenses/*.txt"))):
        yield text.rpartition("\n---\n")[2]
    for text in read(sorted(root.rglob("Software/License/*.pm"))):
        yield text.partition("__LICENSE__\n")[2]
    yield from read(sorted(root.glob("*/usr/share/doc/*/copyright")))


def _perl(root: Path) -> Iterator[str]:
    return map(pod_text, read(sorted((root / "perl-doc").rglob("*.pod"))))


def _manuals(root: Path) -> Iterator[str]:
    pages = (path for name in ("manpages", "manpages-dev") for path in (root / name).rglob("*.gz"))
    return map(roff_text, read(sorted(p for p in pages if p.parent.name.startswith("man"))))


def _scripture(root: Path) -> Iterator[str]:
    for index in sorted((root / "sword-text-kjv").rglob("*.bzs")):
        yield from chapters(index.with_suffix(""))


def _quotations(root: Path) -> Iterator[str]:
    files = sorted((root / "fortunes/usr/share/games/fortunes").glob("*.u8"))
    for text in read(path.with_suffix("") for path in files):
        yield from grouped(quotations(text), _GROUP, between="\n%\n")


def _dictionary(root: Path) -> Iterator[str]:
    return grouped(dictionary_entries(next((root / "dict-gcide").rglob("*.dz"))), _GROUP)


def _headers(root: Path) -> Iterator[str]:
    return read(sorted((root / "linux-libc-dev").rglob("*.h")))


def _politics(root: Path) -> Iterator[str]:
    return map(html_text, read(sorted((root / "anarchism").rglob("*.html"))))


def _lisp(root: Path) -> Iterator[str]:
    return read(sorted((root / "emacs-el").rglob("*.el.gz")))


def _databases(root: Path) -> Iterator[str]:
    for page in read(sorted((root / "sqlite3-doc").rglob("*.html"))):
        yield html_text(page).rpartition("Search Changelog")[2]  # the end of its menu


def _jargon(root: Path) -> Iterator[str]:
    return grouped(dictionary_entries(next((root / "dict-jargon").rglob("*.dz"))), _GROUP)


def _novels(root: Path) -> Iterator[str]:
    lines = r_strings(next((root / "r-cran-janeaustenr").rglob("Rdata.rdb")))
    yield from re.split(r"\n\s*\n(?=chapter )", "\n".join(lines), flags=re.IGNORECASE)


# Licences first: they stand again in the heads of sources and inside documentation.
TRAINING: dict[str, Callable[[Path], Texts]] = {
    "licences": _licences,
    "python": lambda root: python_code(),
    "perl": _perl,
    "manuals": _manuals,
    "scripture": _scripture,
    "quotations": _quotations,
    "dictionary": _dictionary,
    "headers": _headers,
}
EVALUATION: dict[str, Callable[[Path], Texts]] = {
    "politics": _politics,
    "lisp": _lisp,
    "databases": _databases,
    "novels": _novels,
    "jargon": _jargon,
}
PACKAGES = (
    "anarchism",
    "base-files",
    "dict-gcide",
    "dict-jargon",
    "emacs-el",
    "fortunes",
    "libsoftware-license-perl",
    "linux-libc-dev",
    "manpages",
    "manpages-dev",
    "perl-doc",
    "r-cran-janeaustenr",
    "ruby-licensee",
    "sqlite3-doc",
    "sword-text-kjv",
)


def default_folder() -> Path:
    """Where they are kept."""
    return cache_dir() / "corpora" / "debian"


def ensure(folder: Path, characters: int = CHARACTERS) -> dict[str, Gathered]:
    """Every domain of `TRAINING` and `EVALUATION`, gathered if it is not there yet.

    What is there stays as it is, so that what was trained on it stays true.

    Raises:
        CorporaError: a package could not be fetched or unpacked.
        OSError: the folder cannot be written.
    """
    domains = TRAINING | EVALUATION
    if all((folder / f"{name}.jsonl").is_file() for name in domains):
        return {name: _kept(name, folder) for name in domains}
    root = folder / _UNPACKED
    for package in PACKAGES:
        _unpack(package, root)
    distinct = Distinct()
    return {
        name: write(name, distinct.documents(texts(root), characters), folder)
        for name, texts in domains.items()
    }


def _kept(name: str, folder: Path) -> Gathered:
    path = folder / f"{name}.jsonl"
    texts = [json.loads(line)["text"] for line in path.open(encoding="utf-8")]
    return Gathered(name, path, len(texts), sum(map(len, texts)))


def _unpack(package: str, root: Path) -> None:
    """Fetch and unpack a package, if it is not there yet.

    Raises:
        CorporaError: it cannot be had.
    """
    if (root / package).is_dir():
        return
    staging = root / f".{package}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    _run(["apt-get", "download", package], staging)
    files = list(staging.glob("*.deb"))
    if not files:
        raise CorporaError(f"apt-get downloaded nothing for {package}")
    _run(["dpkg-deb", "-x", files[0].name, "content"], staging)
    (staging / "content").rename(root / package)
    shutil.rmtree(staging)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CorporaError(f"{command[0]} is needed: these texts come from Debian") from error
    if done.returncode:
        raise CorporaError(f"{' '.join(command)}: {done.stderr.strip()}")


def main() -> int:
    """Gather them and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=default_folder())
    args = parser.parse_args()
    try:
        print(table(ensure(args.folder).values()))
    except CorporaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
