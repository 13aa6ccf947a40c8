"""A page of results in sections, each written by its own command and leaving the others alone."""

from __future__ import annotations

import re
from pathlib import Path

_SECTION = re.compile(r"<!-- begin: (.+?) -->\n(.*?)<!-- end: \1 -->\n", re.DOTALL)


def write_section(path: Path, name: str, text: str) -> None:
    """Put a section, Markdown, in place of the one of that name, or behind the last.

    Raises:
        OSError: the page is not there.
    """
    content = path.read_text(encoding="utf-8")
    fresh = f"<!-- begin: {name} -->\n{text.strip()}\n<!-- end: {name} -->\n"
    known = {match[1]: match[0] for match in _SECTION.finditer(content)}
    if name in known:
        content = content.replace(known[name], fresh)
    else:
        content = f"{content.rstrip()}\n\n{fresh}"
    path.write_text(content, encoding="utf-8")
