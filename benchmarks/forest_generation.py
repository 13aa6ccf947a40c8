"""What a token of an ensemble costs, beside one of a single ELM.

    python benchmarks/forest_generation.py [--forest FOLDER ...] [--elms 8] [--threads 2]

`single` is the engine over one ELM alone. The ensembles are all ELMs, `k static` (the k ELMs of
largest prior run, the others never), and `k a token` (all run, k are mixed at each token). All
write the same number of tokens after the same prompts, by the same engine, a few requests one at a
time and all of them at once, drawn with temperature 1. They run in turns in one process; every
figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import queue
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from evomerge.connectors.local.engine import Engine
from evomerge.connectors.local.engine_model import EngineModel
from evomerge.connectors.local.engine_single import SingleModel
from evomerge.connectors.local.engine_values import Ask, Draw, Ended, Failed, Told
from evomerge.connectors.local.forest.elms import Elms
from evomerge.connectors.local.forest.ensemble import Mixing
from evomerge.connectors.local.forest.generation import EnsembleModel
from evomerge.merging.forest.prior import Prior
from forest_elms import add_options, forest

TARGET = 1.3
TOP = "ensemble, 1 static"


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        elms = Elms(forest(options, Path(scratch)), threads=options.threads)
        _compare(elms, options)


def _compare(elms: Elms, options: argparse.Namespace) -> None:
    first = elms.model(0)
    size = sum(each.numel() for each in first.model.parameters())
    print(
        f"{len(elms)} ELMs of {size / 1e6:.1f}M parameters, {first.dtype}, "
        f"{first.threads} threads\n"
        f"{options.requests} prompts of {options.prompt} tokens, {options.tokens} tokens each"
    )
    models = {"single": SingleModel(first), **_ensembles(elms)}
    asks = _asks(options, int(first.projection.out_features))
    alone = [[ask] for ask in asks[: options.alone]]
    for label, groups in (("one at a time", alone), ("at once", [asks])):
        spent = _measure(models, groups, options)
        print(f"\n{label}")
        for name, seconds in spent.items():
            ratio = seconds / spent["single"]
            print(f"{name:24} {1000 * seconds:8.2f} ms a token  {ratio:6.2f} times a single ELM")
        print(f"the top-1 ensemble: {spent[TOP] / spent['single']:.3f} (at most {TARGET})")


def _ensembles(elms: Elms) -> dict[str, EngineModel]:
    n = len(elms)
    prior = Prior.cached(np.arange(n, 0, -1) / sum(range(1, n + 1)))
    few = max(1, n // 4)
    mixings = {
        TOP: Mixing(prior, top_k=1, top_k_kind="static"),
        f"ensemble, {few} static": Mixing(prior, top_k=few, top_k_kind="static"),
        f"ensemble, {few} a token": Mixing(prior, top_k=few),
        f"ensemble of {n}": Mixing(prior),
    }
    return {
        name: EnsembleModel(elms.models(mixing.running), mixing) for name, mixing in mixings.items()
    }


def _asks(options: argparse.Namespace, vocabulary: int) -> list[Ask]:
    rng = np.random.default_rng(0)
    prompts = rng.integers(1, vocabulary, (options.requests, options.prompt)).tolist()
    return [
        Ask(tuple(prompt), options.tokens, Draw(temperature=1.0, seed=seed))
        for seed, prompt in enumerate(prompts)
    ]


def _measure(
    models: dict[str, EngineModel], groups: Sequence[Sequence[Ask]], options: argparse.Namespace
) -> dict[str, float]:
    """Median seconds a token written, in turns, after one round that is not counted."""
    spent: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(options.rounds + 1):
        for name, model in models.items():
            engine = Engine(model, rows=options.requests)
            begin = time.perf_counter()
            tokens = sum(_write(engine, group) for group in groups)
            spent[name].append((time.perf_counter() - begin) / tokens)
            engine.close()
    return {name: median(seconds[1:]) for name, seconds in spent.items()}


def _write(engine: Engine, asks: Sequence[Ask]) -> int:
    """Answer requests beside each other; how many tokens were written."""
    heard: queue.SimpleQueue[Told] = queue.SimpleQueue()
    engine.start(asks, None, [heard.put] * len(asks))
    count = left = 0
    while left < len(asks):
        told = heard.get()
        if isinstance(told, Failed):
            raise told.error
        if isinstance(told, Ended):
            left += 1
            count += told.tokens
    return count


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_options(parser, elms=8)
    parser.add_argument("--requests", type=int, default=8, help="at once")
    parser.add_argument("--alone", type=int, default=2, help="of those, one at a time as well")
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
