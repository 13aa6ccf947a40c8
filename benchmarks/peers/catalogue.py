"""Who takes part: each peer's program, and the environment that it runs in.

Licences, as their packages state them: mergekit LGPL-3.0-only, mergenetic Apache-2.0, LoRAHub MIT,
PEFT Apache-2.0. Each runs as a program of its own; none of their code is in this project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import Environment

CHILDREN = Path(__file__).resolve().parent / "children"

MERGEKIT = Environment(
    "mergekit", ("mergekit==0.1.5", "ray==2.60.0", "cma==4.5.0", "lm-eval[hf]==0.4.13")
)
LORAHUB = Environment(
    "lorahub",
    ("nevergrad==1.0.12", "pandas", "datasets"),
    ("lorahub==0.1.0",),
    "it asks for `dataset`, another package than the `datasets` that it imports",
)
MERGENETIC = Environment(
    "mergenetic",
    (
        "transformers==4.45.2",
        "tokenizers<0.21",
        "peft==0.14.0",
        "accelerate==1.3.0",
        "datasets<4",
        "pandas==2.2.2",
        "numpy<2.3",
        "pydantic~=2.10.6",
        "click==8.1.8",
        "tqdm==4.67.1",
        "immutables==0.20",
        "cma==3.2.2",
        "sentencepiece",
        "protobuf",
        "fasttext-numpy2",
        "git-python",
        "plotly",
        "matplotlib",
        "jsonlines",
        "numexpr",
        "tqdm-multiprocess",
        "zstandard",
        "pybind11",
        "autograd",
        "alive-progress",
        "Deprecated",
        "setuptools",
    ),
    ("mergenetic==0.1.1", "mergekit==0.0.6", "lm-eval==0.4.8", "pymoo==0.6.1.3"),
    "it asks for vllm and bitsandbytes, with CUDA; its road without them is the one taken",
)


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
        name: in the table and on the command line.
        script: its program.
        environment: None for the one that runs this benchmark.
        options: of this peer, in its task file.
        what: what it does, in a line.
    """

    name: str
    script: Path
    environment: Environment | None
    what: str
    options: Mapping[str, Any] = field(default_factory=dict)


PEERS = (
    Peer("ours", CHILDREN / "ours.py", None, "the service, preset default", {"preset": "default"}),
    Peer(
        "ours-paper", CHILDREN / "ours.py", None, "the service, preset paper", {"preset": "paper"}
    ),
    Peer(
        "reference",
        CHILDREN / "reference.py",
        None,
        "the release's loop: every adapter read, the merge written and wrapped for each candidate",
        {"form": "as released"},
    ),
    Peer(
        "reference-fair",
        CHILDREN / "reference.py",
        None,
        "the same search, every file opened once in all and nothing written",
        {"form": "fair"},
    ),
    Peer(
        "peft",
        CHILDREN / "peft_merges.py",
        None,
        "add_weighted_adapter: a grid over its ways of combining, weights and densities",
    ),
    Peer("lorahub", CHILDREN / "lorahub_search.py", LORAHUB, "its own search by nevergrad's NGOpt"),
    Peer(
        "mergekit-evolve",
        CHILDREN / "mergekit_evolve.py",
        MERGEKIT,
        "CMA-ES over task_arithmetic, weights of either sign, in memory",
    ),
    Peer(
        "mergenetic",
        CHILDREN / "mergenetic_search.py",
        MERGENETIC,
        "pymoo's genetic algorithm over task_arithmetic, weights in [0, 1]",
    ),
)
