"""Plain text out of the forms in which Debian's packages carry it."""

from __future__ import annotations

import gzip
import html
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_TAG = re.compile(r"<[^>]*>")
# What a page shows around its text, or what is no text.
_NO_TEXT = re.compile(r"<(head|script|style|nav|svg)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
_BLOCK = re.compile(
    r"</?(p|div|h[1-6]|li|ul|ol|dl|dt|dd|pre|tr|table|br|hr|blockquote|body|center)\b[^>]*>",
    re.IGNORECASE,
)
_PREFORMATTED = re.compile(r"(<pre\b.*?</pre>)", re.DOTALL | re.IGNORECASE)
_POD_CODE = re.compile(r"([A-Z])<(?:<+ (.*?) >+|([^<>]*))>", re.DOTALL)
_ROFF_FONT = re.compile(r"\\f(?:\[[^]]*\]|\(..|.)|\\s[-+]?\d|\\[|&/,^!:]|\\[*][^(\[]")
_ROFF_NAMED = re.compile(r"\\(?:\(|\[)([^\]]{2,})\]|\\\((..)")
_ROFF_SIGN = {"em": "—", "en": "–", "aq": "'", "dq": '"', "cq": "'", "oq": "'", "lq": '"'}
_ROFF_SIGN |= {
    "rq": '"',
    "bu": "*",
    "co": "©",
    "mu": "x",
    "ti": "~",
    "ha": "^",
    "ga": "`",
    "->": "->",
}
# Macros whose arguments are text; joined, for those that alternate fonts.
_ROFF_TEXT = {"SH", "SS", "TP", "IP", "B", "I", "SM", "SB", "Sh", "Ss", "It", "TQ"}
_ROFF_JOINED = {"BR", "RB", "BI", "IB", "IR", "RI"}
_ROFF_PARAGRAPH = {"PP", "P", "LP", "Pp", "TP", "IP", "SH", "SS", "Sh", "Ss", "HP"}
_WORD = re.compile(r'"((?:[^"]|"")*)"|(\S+)')
_BLOCK_INDEX = struct.Struct("<III")
_VERSE_INDEX = struct.Struct("<IIH")
_CHAPTER = "<chapter "
# A string in R's serialisation: a flag word of its kind and encoding, and its length.
_R_STRING = re.compile(rb"\x00[\x04\x08\x0c]\x00\x09(....)", re.DOTALL)


def html_text(page: str) -> str:
    """What a page of hand-written or generated HTML says, a block a paragraph."""
    body = _NO_TEXT.sub("", page)
    parts = _PREFORMATTED.split(body)
    # Line ends mean nothing in HTML, except in what is set as it stands.
    flowing = [part if number % 2 else " ".join(part.split()) for number, part in enumerate(parts)]
    text = html.unescape(_TAG.sub("", _BLOCK.sub("\n\n", "\n\n".join(flowing))))
    return "\n".join(line.strip() for line in text.split("\n"))


def pod_text(source: str) -> str:
    """Perl's documentation without its markup; the code between is left out."""
    kept: list[str] = []
    inside = False
    for paragraph in source.split("\n\n"):
        command, _, rest = paragraph.strip("\n").partition(" ")
        if command.startswith("="):
            inside = command not in ("=cut", "=begin", "=encoding")
            if inside and rest:
                kept.append(rest)
        elif inside:
            kept.append(paragraph)
    text = "\n\n".join(kept)
    for _ in range(3):  # markup within markup
        text = _POD_CODE.sub(_pod_code, text)
    return text


def _pod_code(found: re.Match[str]) -> str:
    kind, content = found[1], found[2] or found[3] or ""
    if kind == "E":
        return {"lt": "<", "gt": ">", "verbar": "|", "sol": "/"}.get(content, "")
    if kind in "XZ":
        return ""
    return content.partition("|")[0] if kind == "L" else content


def roff_text(source: str) -> str:
    """A manual page without its macros."""
    lines: list[str] = []
    for line in source.split("\n"):
        if not line.startswith((".", "'")):
            lines.append(line)
            continue
        name, _, rest = line[1:].strip().partition(" ")
        if name in _ROFF_PARAGRAPH:
            lines.append("")
        if name in _ROFF_JOINED | _ROFF_TEXT:
            words = [plain or quoted for quoted, plain in _WORD.findall(rest)]
            lines.append(("" if name in _ROFF_JOINED else " ").join(words))
    return _roff_signs("\n".join(lines))


def _roff_signs(text: str) -> str:
    text = _ROFF_NAMED.sub(lambda m: _ROFF_SIGN.get(m[1] or m[2], ""), text)
    plain = _ROFF_FONT.sub("", text).replace("\\-", "-").replace("\\e", "\\")
    return plain.replace("\\ ", " ").replace("\\'", "'").replace("\\~", " ")


def dictionary_entries(file: Path) -> list[str]:
    """The entries of a dictionary in dictd's format: each begins at the margin.

    Raises:
        OSError: it cannot be read.
    """
    text = gzip.decompress(file.read_bytes()).decode("utf-8", "replace")
    entries = re.split(r"\n\n(?=\S)", text)
    return [entry for entry in entries if not entry.startswith("00-database")]


def quotations(text: str) -> list[str]:
    """The sayings of one of fortune's files."""
    return [part.strip("\n") for part in re.split(r"^%$", text, flags=re.MULTILINE)]


def chapters(module: Path) -> Iterator[str]:
    """The chapters of a testament in SWORD's compressed format, a verse a line.

    Args:
        module: its files' path without their endings.

    Raises:
        OSError: one of them cannot be read.
    """
    indices, packed, verses = (
        module.with_suffix(ending).read_bytes() for ending in (".bzs", ".bzz", ".bzv")
    )
    blocks = [
        zlib.decompress(packed[start : start + size]) if size else b""
        for start, size, _ in _BLOCK_INDEX.iter_unpack(indices)
    ]
    chapter: list[str] = []
    for block, start, size in _VERSE_INDEX.iter_unpack(verses):
        verse = blocks[block][start : start + size].decode("utf-8", "replace")
        if _CHAPTER in verse:
            yield "\n".join(chapter)
            chapter = []
        elif text := " ".join(html.unescape(_TAG.sub("", verse)).replace("¶", "").split()):
            chapter.append(text)
    yield "\n".join(chapter)


def r_strings(database: Path) -> Iterator[str]:
    """The lines of text in an R package's data, in the order in which they stand.

    Raises:
        OSError: it cannot be read.
    """
    raw = database.read_bytes()
    start = 0
    while start < len(raw):
        # Each object: the length of what follows before compression, then a zlib stream.
        stream = zlib.decompressobj()
        data = stream.decompress(raw[start + 4 :])
        yield from _strings_of(data)
        start = len(raw) - len(stream.unused_data)


def _strings_of(data: bytes) -> Iterator[str]:
    position = 0
    while found := _R_STRING.search(data, position):
        size = int.from_bytes(found[1], "big", signed=True)
        position = found.end() + max(size, 0)
        yield data[found.end() : position].decode("utf-8", "replace")


def spdx_text(source: str) -> str:
    """A licence out of SPDX's XML, without what is said about it."""
    _, _, body = source.partition("<text>")
    text = re.sub(r"</?(p|titleText|item|list|optional|br)\b[^>]*>", "\n\n", body)
    blocks = html.unescape(_TAG.sub("", text)).split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks)
