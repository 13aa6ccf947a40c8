"""A repository of a hundred and more LoRA experts of one small base, made by one command.

    python -m benchmarks.repository [--quick] [--processes 2] [--home FOLDER]

Importing this package alone imports neither torch nor the sources of the tasks.
"""

from benchmarks.repository.members import Members
from benchmarks.repository.open import NotBuiltError, Repository, open_repository

__all__ = ["Members", "NotBuiltError", "Repository", "open_repository"]
