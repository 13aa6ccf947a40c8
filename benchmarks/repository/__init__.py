"""A repository of a hundred and more LoRA experts of one small base, made by one command.

See docs/repository.md. Importing this package alone imports neither torch nor the tasks' sources.
"""

from benchmarks.repository.members import Members
from benchmarks.repository.open import NotBuiltError, Repository, open_repository

__all__ = ["Members", "NotBuiltError", "Repository", "open_repository"]
