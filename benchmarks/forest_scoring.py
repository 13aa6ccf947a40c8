"""What scoring texts with an ensemble costs, beside the forwards of its ELMs alone.

    python benchmarks/forest_scoring.py [--forest FOLDER ...] [--elms 8] [--threads 2]

The texts are blocks of random tokens. `n forwards` is a plain loop over the ELMs with transformers:
the whole model over the same batches, and the log-probabilities of the tokens that stand there.
`ensemble` is the scorer with nothing cached: the same forwards, then the posterior of every token
and the mixture. `ensemble, k static` runs only the k ELMs of largest prior. `mixed again` scores
with another prior what was read already. All run in turns in one process; every figure is the
median of its rounds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.nn import functional

from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.forest.cache import LogProbCache
from evomerge.connectors.local.forest.elms import Elms
from evomerge.connectors.local.forest.ensemble import ForestScorer, Mixing
from evomerge.connectors.local.forest.log_probs import block_rows
from evomerge.connectors.local.rows import Row
from evomerge.merging.forest.prior import Prior
from forest_elms import add_options, forest

TARGET = 1.1


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        elms = Elms(forest(options, Path(scratch)), threads=options.threads)
        _compare(elms, options, Path(scratch) / "cache")


def _compare(elms: Elms, options: argparse.Namespace, folder: Path) -> None:
    models = elms.models()
    rows = _blocks(options, int(models[0].projection.out_features))
    tokens = sum(row.scored for row in rows)
    size = sum(each.numel() for each in models[0].model.parameters())
    print(
        f"{len(elms)} ELMs of {size / 1e6:.1f}M parameters, {models[0].dtype}, "
        f"{models[0].threads} threads; {len(rows)} blocks of {options.block} tokens"
    )
    prior = Prior.cached(np.arange(1, len(elms) + 1) / sum(range(1, len(elms) + 1)))
    scorer = ForestScorer(elms, batch_tokens=options.batch_tokens)
    cached = ForestScorer(elms, batch_tokens=options.batch_tokens, cache=LogProbCache(folder))
    cached.log_probs(rows)
    few = max(1, len(elms) // 4)
    static = Mixing(prior, top_k=few, top_k_kind="static")
    runs: dict[str, Callable[[], object]] = {
        f"{len(elms)} forwards": partial(_plain, models, rows, options.batch_tokens),
        f"ensemble of {len(elms)}": partial(scorer.score, rows, Mixing(prior)),
        f"{few} forwards": partial(_plain, models[-few:], rows, options.batch_tokens),
        f"ensemble, {few} static": partial(scorer.score, rows, static),
        "mixed again": partial(cached.score, rows, Mixing(Prior.uniform(len(elms)))),
    }
    spent = _measure(runs, options.rounds)
    for name, seconds in spent.items():
        print(f"{name:24} {seconds:8.3f} s  {tokens / seconds:10.0f} tokens/s")
    ratio = spent[f"ensemble of {len(elms)}"] / spent[f"{len(elms)} forwards"]
    print(f"\nthe ensemble of {len(elms)} takes {ratio:.3f} times its forwards (at most {TARGET})")


def _plain(models: Sequence[BaseModel], rows: Sequence[Row], batch_tokens: int) -> np.ndarray:
    """Log-probabilities (n, tokens) by transformers alone; the blocks are of one length."""
    blocks = torch.tensor([row.tokens for row in rows])
    size = max(1, batch_tokens // blocks.shape[1])
    found = []
    for base in models:
        with base.running():
            for some in torch.split(blocks, size):
                logits = base.model(some[:, :-1], use_cache=False).logits
                nll = functional.cross_entropy(
                    logits.flatten(0, 1), some[:, 1:].flatten(), reduction="none"
                )
                found.append(-nll.double().numpy())
    return np.concatenate(found).reshape(len(models), -1)


def _blocks(options: argparse.Namespace, vocabulary: int) -> list[Row]:
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, vocabulary, (options.blocks, options.block + 1))
    return block_rows(drawn.tolist())


def _measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each run, in turns, after one round that is not counted."""
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            run()
            spent[name].append(time.perf_counter() - begin)
    return {name: median(seconds[1:]) for name, seconds in spent.items()}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, elms=8)
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
