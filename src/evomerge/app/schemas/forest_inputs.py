"""What a job over a forest is made of, fixed when it is created: ids, hashes and paths.

Written to `Job.inputs` by the API and read by the worker, which checks every hash again. An ELM
that comes or goes later changes no job.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _Fixed(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ElmInput(_Fixed):
    """One ELM, in the forest's order."""

    name: str
    domain: str
    path: Path
    content_hash: str
    tokens: int = 0
    own_tokens: int = 0
    corpus_hash: str | None = None


class CorpusInput(_Fixed):
    """The documents of one domain; the hash is over their digests, in order."""

    domain: str
    path: Path
    content_hash: str
    bytes: int
    documents: int = 0


class ForestInput(_Fixed):
    """A forest as it was.

    `ensemble` is how its ELMs spoke together; `parameters` and `bytes` are one ELM's.
    """

    id: str
    name: str
    seed_path: Path
    seed_hash: str
    seed_tokens: int = 0
    ensemble: dict[str, Any] = Field(default_factory=dict)
    parameters: int
    bytes: int
    elms: list[ElmInput] = Field(default_factory=list)


class ForestJobInputs(_Fixed):
    """Everything that a job over a forest reads.

    `forest` is None where the job trains a seed; `elm` is the name of the ELM that it trains;
    `tokenizer` is a folder and the hash of its tokenizer; `parameters` are the model's.
    """

    forest: ForestInput | None = None
    corpora: list[CorpusInput] = Field(default_factory=list)
    elm: str | None = None
    tokenizer: Path | None = None
    parameters: int
