"""Tokens a second of the serving engine: many requests at once, one by one, and peers.

    python benchmarks/serving.py --base FOLDER --adapters "examples/pool/*" [--requests 16]

Requests are short prompts, greedy, each over one of the adapters in turn. `engine, at once` has
all requests under way together, of all adapters; `engine, one by one` sends the next when the one
before has ended. The peers are transformers' `generate` under PEFT with one adapter: one prompt at
a time, and all of them as one padded batch, which can hold one adapter only and ends with its
longest answer. All run in turns in one process; every figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from statistics import median

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.engine import Engine
from evomerge.connectors.local.engine_layers import EngineAdapter, load_engine_adapter
from evomerge.connectors.local.engine_single import SingleModel
from evomerge.connectors.local.engine_values import Ask, Ended, Failed, Told

TOPICS = ("films", "rivers", "moons", "kings", "birds", "bridges", "metals", "songs")


@dataclass(frozen=True)
class Run:
    """One way of answering; `go` gives how many tokens it wrote."""

    name: str
    go: Callable[[], int]


def main() -> None:
    options = _options()
    folders = [Path(folder) for folder in sorted(glob(options.adapters))[: options.kinds]]
    base = load_base(options.base, threads=options.threads)
    prompts = [
        tuple(base.tokenizer(f"Number {n}. Tell me about {TOPICS[n % 8]} and").input_ids)
        for n in range(options.requests)
    ]
    print(
        f"{base.name}, {base.dtype}, {base.threads} threads, {options.requests} requests over "
        f"{len(folders)} adapters, at most {options.tokens} tokens each"
    )
    engine = Engine(SingleModel(base), rows=options.requests)
    adapters = [load_engine_adapter(folder, base) for folder in folders]
    peer = _peer(options.base, folders[0])
    ours = _Ours(engine, adapters, prompts, options.tokens)
    theirs = _Peer(peer, base, prompts, options.tokens)
    runs = [
        Run("engine, at once", ours.at_once),
        Run("engine, one by one", ours.one_by_one),
        Run("generate, one by one", theirs.one_by_one),
        Run("generate, one batch of one adapter", theirs.one_batch),
    ]
    _report(_measure(runs, options.rounds))
    engine.close()


class _Ours:
    def __init__(
        self,
        engine: Engine,
        adapters: Sequence[EngineAdapter],
        prompts: Sequence[tuple[int, ...]],
        tokens: int,
    ) -> None:
        self._engine = engine
        self._jobs = [
            (Ask(prompt, tokens), adapters[number % len(adapters)])
            for number, prompt in enumerate(prompts)
        ]

    def at_once(self) -> int:
        heard: queue.SimpleQueue[Told] = queue.SimpleQueue()
        for ask, adapter in self._jobs:
            self._engine.start([ask], adapter, [heard.put])
        return sum(_ended(heard) for _ in self._jobs)

    def one_by_one(self) -> int:
        heard: queue.SimpleQueue[Told] = queue.SimpleQueue()
        count = 0
        for ask, adapter in self._jobs:
            self._engine.start([ask], adapter, [heard.put])
            count += _ended(heard)
        return count


class _Peer:
    def __init__(
        self, model: PeftModel, base: BaseModel, prompts: Sequence[tuple[int, ...]], tokens: int
    ) -> None:
        self._model = model
        self._ends = base.end_tokens
        self._prompts = prompts
        self._tokens = tokens

    def one_by_one(self) -> int:
        return sum(self._generate([prompt]) for prompt in self._prompts)

    def one_batch(self) -> int:
        return self._generate(self._prompts)

    def _generate(self, prompts: Sequence[tuple[int, ...]]) -> int:
        """Tokens written up to each answer's end, as the engine counts them."""
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self._ends[0])
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        with torch.inference_mode():
            out = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=self._tokens,
                eos_token_id=self._ends,
                pad_token_id=self._ends[0],
            )
        ended = torch.isin(out[:, longest:], torch.tensor(self._ends))
        first = torch.where(ended.any(1), ended.int().argmax(1) + 1, ended.shape[1])
        return int(first.sum())


def _ended(heard: queue.SimpleQueue[Told]) -> int:
    while True:
        told = heard.get()
        if isinstance(told, Failed):
            raise told.error
        if isinstance(told, Ended):
            return told.tokens


def _peer(base: Path, adapter: Path) -> PeftModel:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, local_files_only=True)
    return PeftModel.from_pretrained(model, adapter).eval()


def _measure(runs: Sequence[Run], rounds: int) -> dict[str, float]:
    """Tokens a second of each, after one round that is not counted."""
    found: dict[str, list[float]] = {run.name: [] for run in runs}
    for number in range(rounds + 1):
        for run in runs:
            began = time.perf_counter()
            tokens = run.go()
            if number:
                found[run.name].append(tokens / (time.perf_counter() - began))
    return {name: median(values) for name, values in found.items()}


def _report(speeds: dict[str, float]) -> None:
    first = next(iter(speeds.values()))
    print(f"\n{'':36}{'tokens/s':>10}{'at once is so many times as fast':>36}")
    for name, speed in speeds.items():
        print(f"{name:36}{speed:10.1f}{first / speed:36.2f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--adapters", required=True, help="pattern of adapters' folders")
    parser.add_argument("--kinds", type=int, default=4, help="adapters used at most")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
