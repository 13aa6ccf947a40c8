"""What Debian's forms of text become."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

from benchmarks.btm import readers


def test_html_loses_its_markup_and_keeps_its_blocks() -> None:
    page = (
        "<html><head><title>no</title></head><body><h1>A &amp; B</h1>\n<p>One\nline <b>bold</b>."
        "</p><pre>x = 1\n  y</pre><script>no()</script></body></html>"
    )
    lines = [line for line in readers.html_text(page).split("\n") if line]
    assert lines == ["A & B", "One line bold.", "x = 1", "y"]


def test_pod_keeps_what_is_documentation() -> None:
    source = (
        "package X;\n\n=head1 NAME\n\nX - does C<< $x->y >> and B<I<both>>, L<see|perlfunc>, E<lt>"
        "\n\n  my $code;\n\n=cut\n\nsub hidden {}\n"
    )
    text = readers.pod_text(source)
    assert text == "NAME\n\nX - does $x->y and both, see, <\n\n  my $code;"


def test_roff_keeps_what_is_read() -> None:
    source = (
        '.\\" a comment\n.TH ACCEPT 2\n.SH DESCRIPTION\nThe\n.BR accept ()\ncall \\fIfd\\fP\\-1.\n'
        '.PP\nIt\\(aqs\n.I "two words"\n.nf\n'
    )
    assert readers.roff_text(source) == (
        "\nDESCRIPTION\nThe\naccept()\ncall fd-1.\n\nIt's\ntwo words\n"
    )


def test_a_dictionary_is_cut_where_an_entry_begins(tmp_path: Path) -> None:
    file = tmp_path / "x.dict.dz"
    file.write_bytes(
        gzip.compress(b"00-database-info\n   no\n\nAa\n   1. x\n\n   2. y\n\nAb\n   z")
    )
    assert readers.dictionary_entries(file) == ["Aa\n   1. x\n\n   2. y", "Ab\n   z"]


def test_quotations_are_cut_at_their_signs() -> None:
    assert readers.quotations("one\n%\ntwo, 5 % of it\n%\n") == ["one", "two, 5 % of it", ""]


def test_chapters_come_out_of_a_module(tmp_path: Path) -> None:
    verses = [b'<chapter n="1"/>', b"In the <w>beginning</w>", b"\xc2\xb6 And", b'<chapter n="2"/>']
    verses.append(b"Thus &amp; so")
    block = zlib.compress(b"".join(verses))
    module = tmp_path / "ot"
    module.with_suffix(".bzz").write_bytes(block)
    module.with_suffix(".bzs").write_bytes(struct.pack("<III", 0, len(block), 0))
    starts = [sum(map(len, verses[:n])) for n in range(len(verses))]
    index = [struct.pack("<IIH", 0, s, len(v)) for s, v in zip(starts, verses, strict=True)]
    module.with_suffix(".bzv").write_bytes(b"".join(index))
    assert list(readers.chapters(module)) == ["", "In the beginning\nAnd", "Thus & so"]


def test_strings_come_out_of_r_data(tmp_path: Path) -> None:
    def stored(*lines: bytes) -> bytes:
        strings = [b"\x00\x04\x00\x09" + struct.pack(">i", len(line)) + line for line in lines]
        data = zlib.compress(b"X\n" + b"".join(strings))
        return struct.pack(">I", len(data)) + data

    database = tmp_path / "Rdata.rdb"
    database.write_bytes(stored(b"CHAPTER 1", b"") + stored(b"It is a truth"))
    assert list(readers.r_strings(database)) == ["CHAPTER 1", "", "It is a truth"]


def test_a_licence_comes_out_of_its_xml() -> None:
    source = "<license><crossRef>no</crossRef><text><p>You\n  may &lt;copy&gt;</p><p>it</p></text>"
    assert readers.spdx_text(source) == "\n\nYou may <copy>\n\n\n\nit\n\n"
