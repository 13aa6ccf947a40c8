"""What merging a population costs: ours against plain torch and against reading every file.

Run: python benchmarks/merge_population.py [--experts 100] [--population 20] [--rounds 5]

The pool is synthetic, of the shape of SmolLM2-135M (30 layers, 7 modules each, rank 8), written to
a temporary folder as PEFT does. Every round runs all roads in turn, so that a busy machine hits
them alike; the best round of each counts. Peers:

- plain torch: the same pool in memory, the places by magnitude computed once as ours are, each
  candidate a mask, a product and a sum for every module;
- from disk: every adapter's file opened once a candidate, top-k of each tensor, as the reference
  release does (which opens a file for every tensor, and writes and reads the result as well).

Milliseconds are of wall clock and, beside them, of processor time, which a busy machine disturbs
less. Memory is the peak beyond what was there before the pool, over the bytes of the pool.
"""

from __future__ import annotations

import argparse
import gc
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from evomerge.merging.lora.adapter import WEIGHTS_FILE
from evomerge.merging.lora.artifact import MergedAdapter
from evomerge.merging.lora.pool import LoraPool, StackedModule, stack_folders
from evomerge.merging.lora.space import LoraSpace
from evomerge.merging.lora.sparsify import keep_counts
from evomerge.optimizers.candidate import Candidate

LAYERS, HIDDEN, KEYS, WIDE, RANK = 30, 576, 192, 1536, 8
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (KEYS, HIDDEN),
    "self_attn.v_proj": (KEYS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (WIDE, HIDDEN),
    "mlp.up_proj": (WIDE, HIDDEN),
    "mlp.down_proj": (HIDDEN, WIDE),
}


@dataclass(frozen=True)
class Cost:
    """Milliseconds a candidate."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Road:
    """One way of merging so many candidates."""

    name: str
    run: Callable[[], object]
    candidates: int
    rounds: int


def write_adapters(folder: Path, experts: int, layers: int) -> list[Path]:
    """Random adapters in bfloat16, as real ones are stored."""
    generator = torch.Generator().manual_seed(0)
    folders = [folder / f"expert-{number:03}" for number in range(experts)]
    for path in folders:
        modules = {
            f"model.layers.{layer}.{name}": (
                (torch.randn(RANK, d_in, generator=generator) / RANK).bfloat16(),
                (torch.randn(d_out, RANK, generator=generator) / RANK).bfloat16(),
            )
            for layer in range(layers)
            for name, (d_out, d_in) in SHAPES.items()
        }
        MergedAdapter(modules).write(path, "synthetic")
    return folders


def population(experts: int, size: int, *, scaling: bool) -> list[Candidate]:
    """As a search asks: alpha differs in stage 1; in stage 2 it is fixed and beta differs."""
    random = np.random.default_rng(1)
    fixed = random.uniform(0.3, 1.0, (1, experts))
    average = np.full((1, experts), 1 / experts)
    if scaling:
        return [Candidate(fixed, random.normal(0, 0.3, fixed.shape)) for _ in range(size)]
    return [Candidate(random.uniform(0.3, 1.0, fixed.shape), average) for _ in range(size)]


class PlainTorch:
    """The same pool with nothing but torch, the fastest way found: one candidate at a time."""

    def __init__(self, pool: LoraPool) -> None:
        self._modules = pool.modules
        # As floats: torch is slow where types differ. This doubles the memory of A.
        self._ranks = {name: ranks.float() for name, ranks in pool.magnitude_ranks().items()}
        self._mask = {m.A.flatten(1).shape: torch.empty_like(m.A.flatten(1)) for m in pool.modules}

    def realise(self, candidates: Sequence[Candidate]) -> list[tuple[Tensor, Tensor]]:
        return [self._one(m, c) for c in candidates for m in self._modules]

    def _one(self, module: StackedModule, candidate: Candidate) -> tuple[Tensor, Tensor]:
        keep = torch.from_numpy(keep_counts(candidate.alpha[0], module.sizes)).float()
        beta = torch.from_numpy(candidate.beta[0]).float()
        values = module.A.flatten(1)
        mask = self._mask[values.shape]
        torch.lt(self._ranks[module.name], keep[:, None], out=mask)
        return beta @ mask.mul_(values), beta @ module.Bt.flatten(1)


def from_disk(folders: Sequence[Path], candidate: Candidate) -> dict[str, Tensor]:
    """One candidate: every adapter read, sparsified and added, its file opened once."""
    sums: dict[str, Tensor] = {}
    for expert, folder in enumerate(folders):
        alpha, beta = float(candidate.alpha[0, expert]), float(candidate.beta[0, expert])
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118
                tensor = weights.get_tensor(name).float()
                if ".lora_A." in name:
                    flat = tensor.flatten()
                    kept = torch.topk(flat.abs(), max(1, int(alpha * flat.numel()))).indices
                    tensor = torch.zeros_like(flat).index_copy_(0, kept, flat[kept])
                    tensor = tensor.view(RANK, -1)
                if name in sums:
                    sums[name].add_(tensor, alpha=beta)
                else:
                    sums[name] = tensor * beta
    return sums


def on_one_thread(work: Callable[[], object]) -> object:
    """Reading from disk is several times faster so: its tensors are too small to be shared out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work()
    finally:
        torch.set_num_threads(threads)


def measure(road: Road) -> Cost:
    gc.collect()
    wall, processor = time.perf_counter(), time.process_time()
    road.run()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return Cost(1e3 * wall / road.candidates, 1e3 * processor / road.candidates)


def compare(roads: Sequence[Road]) -> dict[str, Cost]:
    """The best round of every road, by wall clock and by processor time apart."""
    found: dict[str, list[Cost]] = {road.name: [] for road in roads}
    for number in range(max(road.rounds for road in roads)):
        for road in roads:
            if number < road.rounds:
                found[road.name].append(measure(road))
    return {
        name: Cost(min(c.wall for c in costs), min(c.processor for c in costs))
        for name, costs in found.items()
    }


def table(title: str, costs: dict[str, Cost], ours: str, target: float | None) -> None:
    aim = "" if target is None else f" (aim: at most {target:g} ms)"
    print(f"\n{title}{aim}\n{'':42}{'wall ms':>10}{'cpu ms':>10}{'wall, ours = 1':>16}")
    for name, cost in costs.items():
        ratio = cost.wall / costs[ours].wall
        print(f"{name:42}{cost.wall:10.1f}{cost.processor:10.1f}{ratio:16.1f}", flush=True)


def memory(field: str) -> int:
    """A field of this process's status (VmRSS now, VmHWM at most), in bytes. Linux."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError(f"no {field} in /proc/self/status")
    return int(found.group(1)) * 1024


def forget_peak() -> None:
    """Set VmHWM to what is used now."""
    Path("/proc/self/clear_refs").write_text("5")


def warm_up(scratch: Path) -> None:
    """Compile and load everything once, on a pool of two small experts."""
    space = LoraSpace(stack_folders(write_adapters(scratch, 2, layers=1)), "factor")
    for scaling in (False, True):
        space.realise(population(2, 2, scaling=scaling))
        LoraSpace(space.pool, "exact").realise(population(2, 2, scaling=scaling))
    space.realise([Candidate(np.ones((1, 2)), np.ones((1, 2)))])


def peaks(folders: Sequence[Path], size: int) -> tuple[LoraPool, Iterable[str]]:
    """The stacked pool, and the peak of each step over its bytes."""
    gc.collect()
    before = memory("VmRSS")
    forget_peak()
    start = time.perf_counter()
    pool = stack_folders(folders)
    lines = [f"pool of {pool.nbytes / 1e6:.0f} MB stacked in {time.perf_counter() - start:.1f} s"]

    def note(step: str) -> None:
        lines.append(f"{step:42}{(memory('VmHWM') - before) / pool.nbytes:10.2f}")

    note("stacking")
    start = time.perf_counter()
    pool.magnitude_ranks()
    lines.append(f"places by magnitude found in {time.perf_counter() - start:.1f} s, once a pool")
    for scaling in (False, True):
        LoraSpace(pool, "factor").realise(population(pool.size, size, scaling=scaling))
        note(f"stacking and factor, stage {1 + scaling}")
    LoraSpace(pool, "exact").realise(population(pool.size, size, scaling=True))
    note("the same and exact, stage 2")
    return pool, lines


def report(pool: LoraPool, folders: Sequence[Path], size: int, rounds: int) -> None:
    """Stage 1, stage 2, and the exact composition."""
    factor, exact, plain = LoraSpace(pool, "factor"), LoraSpace(pool, "exact"), PlainTorch(pool)
    one, two = (population(pool.size, size, scaling=scaling) for scaling in (False, True))
    # The same work in both stages, and slow: measured once.
    reading = partial(on_one_thread, partial(from_disk, folders, one[0]))
    disk = Road("from disk, each file opened once", reading, 1, 1)
    read = compare([disk])
    for title, candidates, aim in (("stage 1", one, 60.0), ("stage 2", two, 20.0)):
        ours = Road("ours", partial(factor.realise, candidates), size, rounds)
        masks = Road("plain torch masks", partial(plain.realise, candidates[:3]), 3, rounds)
        table(f"factor, {title}, a candidate", compare([ours, masks]) | read, "ours", aim)
    exactly = compare(
        [
            Road("stage 2, one alpha for all", partial(exact.realise, two), size, rounds),
            Road("stage 1, an alpha each", partial(exact.realise, one[:2]), 2, rounds),
        ]
    )
    table("exact, a candidate", exactly, "stage 2, one alpha for all", None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experts", type=int, default=100)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="merge-population-") as scratch:
        warm_up(Path(scratch) / "warm")
        folders = write_adapters(Path(scratch) / "pool", arguments.experts, LAYERS)
        pool, lines = peaks(folders, arguments.population)
        print(f"{arguments.experts} experts, population {arguments.population}, ", end="")
        print(f"{torch.get_num_threads()} threads\n\npeak memory over the pool (aim: at most 1.7)")
        print("\n".join(lines), flush=True)
        report(pool, folders, arguments.population, arguments.rounds)


if __name__ == "__main__":
    main()
