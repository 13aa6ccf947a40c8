"""A base install, without torch and its company, imports the whole application."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import evomerge

# What `[local]`, `[postgres]` and the other extras bring; none of it is in a base install.
EXTRAS = (
    "gguf",
    "lm_eval",
    "nevergrad",
    "numba",
    "peft",
    "psycopg",
    "pyarrow",
    "ray",
    "rouge_score",
    "sacrebleu",
    "safetensors",
    "torch",
    "transformers",
)

IMPORT_ALL = """
import importlib, pkgutil, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv[1:])
sys.meta_path.insert(0, Missing())
import evomerge
# What computes, imported when a job runs; and alembic's own, which only alembic can import.
LATE = (
    "evomerge.merging.lora",
    "evomerge.merging.operators",
    "evomerge.merging.parallel",
    "evomerge.merging.rules",
    "evomerge.merging.checkpoint.average",
    "evomerge.merging.checkpoint.filling",
    "evomerge.merging.checkpoint.kernels",
    "evomerge.merging.checkpoint.merge",
    "evomerge.merging.checkpoint.space",
    "evomerge.merging.checkpoint.sparse",
    "evomerge.merging.checkpoint.tensors",
    "evomerge.merging.checkpoint.writing",
    "evomerge.connectors.local",
    "evomerge.app.worker.checkpoint_bench",
    "evomerge.app.worker.forest_reading",
    "evomerge.app.worker.forest_scores",
    "evomerge.app.worker.lora_bench",
    "evomerge.app.worker.remote_shelf",
    "evomerge.app.worker.rule_bench",
    "evomerge.migrations.",
)
for module in pkgutil.walk_packages(evomerge.__path__, "evomerge.", onerror=lambda name: None):
    if not module.name.startswith(LATE) and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print(module.name)
"""


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_application_imports_without_any_extra() -> None:
    imported = run(IMPORT_ALL, *EXTRAS)
    assert imported.returncode == 0, imported.stderr
    names = set(imported.stdout.split())
    assert {
        "evomerge.app.main",
        "evomerge.app.cli.root",
        "evomerge.app.worker.process",
        "evomerge.connectors.http",
        "evomerge.evaluation",
        "evomerge.optimizers",
    } <= names


def test_a_command_that_needs_an_extra_says_which() -> None:
    blocked = IMPORT_ALL.split("import evomerge\n")[0]
    code = blocked + (
        "from evomerge.app.cli import app\napp(['base', 'convert', 'model.gguf', 'folder'])\n"
    )
    refused = run(code, *EXTRAS)
    assert refused.returncode == 2
    assert "pip install 'evo-merging[local]'" in refused.stderr


def test_every_folder_of_modules_is_a_package() -> None:
    source = Path(evomerge.__file__).parent
    folders = {file.parent for file in source.rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
