"""The live bar on a real terminal, read back as the terminal was told to show it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import pytest

SHOW = """
import json, sys
from rich.console import Console
from evomerge.app.cli.progress import JobProgress

with JobProgress(Console()) as bar:
    for line in sys.argv[1:]:
        bar.show(json.loads(line))
"""
SEARCH = (
    '{"status": "running", "progress": {"stage": "denoising", "generation": 12, '
    '"evaluations": 1037, "planned_evaluations": 1210, "best_loss": 3.9169, "eta_seconds": 131}}'
)
JOBS = (
    '{"status": "queued", "progress": {}}',
    '{"status": "running", "progress": {"stage": "loading"}}',
    SEARCH,
    SEARCH.replace("denoising", "held_out").replace("1037", "1210").replace(": 131", ": 0"),
    '{"status": "cancelling", "progress": {"stage": "denoising", "generation": 12}}',
)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def frames(columns: int) -> list[str]:
    """Every line that the terminal showed, once, without colours and movements."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
    command = [sys.executable, "-c", SHOW, *JOBS]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        told = b"".join(iter(lambda: _read(ours), b""))
        os.close(ours)
    assert process.returncode == 0, told.decode()
    lines = re.split(r"[\r\n]+", CONTROL.sub("", told.decode()))
    return list(dict.fromkeys(line for line in lines if line.strip()))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


@pytest.mark.parametrize(
    ("columns", "search"),
    [
        (80, ("1037/1210 best 3.9169 0:02:11 left",)),
        (140, ("1037/1210 evaluations best loss 3.9169 0:02:11 left",)),
    ],
)
def test_every_state_is_one_line_with_a_bar(columns: int, search: tuple[str, ...]) -> None:
    shown = frames(columns)
    for said, parts in {
        "queued": (),
        "loading base and pool": (),
        "denoising, generation 12": search,
        "proving on held-out data": ("3.9169",),
        "cancelling": (),
    }.items():
        lines = [line for line in shown if said in line]
        assert lines, shown
        for line in lines:
            assert len(line) <= columns
            assert "━━━━" in line, "there is room for a bar"
            assert all(part in line for part in parts)
            # Only a search can be counted and foreseen.
            assert ("left" in line) == ("/" in line) == (parts is search)
    told = {"queued", "loading", "denoising", "proving", "cancelling"}
    assert all(any(word in line for word in told) for line in shown), "nothing is wrapped"


def test_a_narrow_terminal_gives_up_the_bar_first() -> None:
    lines = [line for line in frames(62) if "denoising" in line]
    assert lines
    for line in lines:
        assert "denoising, generation 12" in line
        assert "1037/1210 best 3.9169 0:02:11 left" in line
