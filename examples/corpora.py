"""Real text of several domains out of what Python and this project's own environment carry.

    python examples/corpora.py [--folder ~/.cache/evomerge/corpora/python]

Nothing is downloaded. Prints what each domain holds.
"""

from __future__ import annotations

import argparse
import ast
import sys
import sysconfig
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from pydoc_data import topics

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from examples.base import cache_dir
from examples.documents import LONGEST, Distinct, Gathered, grouped, read, table, write

CHARACTERS = 1_500_000  # of a domain, at most
STDLIB = Path(sysconfig.get_path("stdlib"))
PACKAGES = Path(sysconfig.get_path("purelib"))
# Other people's packages, tests, tables; and the topics, which are a domain of their own.
_NO_CODE = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "encodings",
    "pydoc_data",
}
_DOCSTRING = 500  # characters; shorter ones say little more than a name
_GROUP = 1500  # characters of a document that is made of short lines
_ALGORITHMIC = ("CJK ", "HANGUL SYLLABLE", "TANGUT IDEOGRAPH", "NUSHU CHARACTER", "KHITAN SMALL")


def python_code() -> Iterator[str]:
    """The standard library's modules."""
    files = sorted(STDLIB.rglob("*.py"))
    return read(path for path in files if not _NO_CODE & set(path.relative_to(STDLIB).parts))


def headers() -> Iterator[str]:
    """C++ headers of torch; those of its operators are generated, and left out."""
    include = PACKAGES / "torch" / "include"
    places = ("c10", "torch/csrc", "ATen/core", "ATen/cpu")
    return read(path for place in places for path in sorted((include / place).rglob("*.h")))


def licences() -> Iterator[str]:
    """The licences of Python and of every installed package."""
    names = ("LICEN*", "COPYING*", "NOTICE*", "licenses/**/*")
    found = (path for name in names for path in sorted(PACKAGES.glob(f"*.dist-info/{name}")))
    return read([*STDLIB.glob("LICENSE.txt"), *(path for path in found if path.is_file())])


def characters() -> Iterator[str]:
    """Unicode's names of its characters, in the order of their numbers."""
    named = ((code, unicodedata.name(chr(code), "")) for code in range(sys.maxunicode + 1))
    told = ((code, name) for code, name in named if name and not name.startswith(_ALGORITHMIC))
    return grouped((f"U+{code:04X} {name}" for code, name in told), _GROUP, between="\n")


def cython() -> Iterator[str]:
    """Cython sources in installed packages, half Python and half C."""
    return read(path for kind in ("pyx", "pxd", "pxi") for path in _installed(f".{kind}"))


def docstrings() -> Iterator[str]:
    """What the packages for arrays and for graphs say about their functions."""
    for package in ("numpy", "networkx"):
        files = sorted((PACKAGES / package).rglob("*.py"))
        for text in read(path for path in files if "tests" not in path.parts):
            yield from _docstrings(text)


def readmes() -> Iterator[str]:
    """The long descriptions of installed packages, in Markdown or reStructuredText."""
    for text in read(sorted(PACKAGES.glob("*.dist-info/METADATA"))):
        _, _, description = text.partition("\n\n")
        yield description


def manual() -> Iterator[str]:
    """Python's language reference, by topic."""
    return iter(topics.topics.values())


# Licences first: they stand again in the heads of sources and at the ends of descriptions.
DOMAINS: dict[str, Callable[[], Iterable[str]]] = {
    "licences": licences,
    "python": python_code,
    "headers": headers,
    "characters": characters,
    "cython": cython,
    "docstrings": docstrings,
    "readmes": readmes,
    "manual": manual,
}


def default_folder() -> Path:
    """Where they are kept."""
    return cache_dir() / "corpora" / "python"


def gather(
    folder: Path, characters: int = CHARACTERS, longest: int = LONGEST
) -> dict[str, Gathered]:
    """Every domain, written anew: what is installed may have changed.

    Args:
        folder: of the domains' files.
        characters: of a domain at most.
        longest: characters of a document at most.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    distinct = Distinct()
    return {
        name: write(name, distinct.documents(texts(), characters, longest), folder)
        for name, texts in DOMAINS.items()
    }


def _installed(ending: str) -> list[Path]:
    """Files that packages brought, by how their names end."""
    records = (text.splitlines() for text in read(sorted(PACKAGES.glob("*.dist-info/RECORD"))))
    names = sorted({line.partition(",")[0] for lines in records for line in lines})
    return [PACKAGES / name for name in names if name.endswith(ending) and "/tests/" not in name]


def _docstrings(source: str) -> Iterator[str]:
    module = ast.parse(source)
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    for node in [*module.body, *(part for owner in classes for part in owner.body)]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node) or ""
            if len(text) >= _DOCSTRING:
                yield f"{node.name}\n\n{text}"


def main() -> None:
    """Gather them and print their sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=default_folder())
    args = parser.parse_args()
    print(table(gather(args.folder).values()))


if __name__ == "__main__":
    main()
