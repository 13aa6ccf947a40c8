"""One virtual environment a peer, made on demand below the user's cache and kept.

Torch is gigabytes: an environment sees the packages of the one that runs this benchmark through a
.pth file, behind its own. What a peer pins differently is installed over that, in its own
environment alone; pip counts what it sees through the file as installed, so that torch itself is
never installed again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

_LINES = 12


class EnvironmentFailedError(Exception):
    """pip refused; the message ends with what it said."""


@dataclass(frozen=True)
class Environment:
    """What is installed for a peer.

    Attributes:
        name: of its folder.
        requirements: as pip takes them, with all that they need.
        alone: then these without what they say they need, for the reason in `why`.
        why: why `alone` is not empty.
    """

    name: str
    requirements: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    why: str = ""

    def folder(self, home: Path) -> Path:
        """Where it is: another place as soon as what is installed, or seen, changes."""
        seen = json.dumps([asdict(self), sys.version, _packages()])
        return home / f"{self.name}-{sha256(seen.encode()).hexdigest()[:12]}"


def ensure(environment: Environment | None, home: Path, say: Callable[[str], None] = print) -> Path:
    """The Python of an environment, made if it is not there whole; of None, the running one.

    Raises:
        EnvironmentFailedError: it cannot be installed here.
        OSError: the folder cannot be written.
    """
    if environment is None:
        return Path(sys.executable)
    folder = environment.folder(home)
    python = folder / "bin" / "python"
    finished = folder / "finished"
    if finished.is_file():
        return python
    say(f"making the environment of {environment.name} in {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    inside = _output([str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    (Path(inside) / "zz_shared.pth").write_text(_packages() + "\n")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if environment.requirements:
        _run([*pip, *environment.requirements])
    if environment.alone:
        _run([*pip, "--no-deps", *environment.alone])
    finished.touch()
    return python


def _packages() -> str:
    """Where the running environment has its packages."""
    return sysconfig.get_path("purelib")


def _run(command: Sequence[str]) -> None:
    _output(command)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise EnvironmentFailedError("\n".join(said[-_LINES:]) or f"exit code {done.returncode}")
    return done.stdout.strip()
