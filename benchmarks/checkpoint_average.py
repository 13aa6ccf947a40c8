"""What averaging checkpoints costs: ours against what reading and writing those bytes takes.

Run: python benchmarks/checkpoint_average.py [--elms 4] [--shards 4] [--shard-mb 256] [--rounds 3]

The ELMs are synthetic, in the given dtype, written to a temporary folder (--folder for another
place). Every round runs all roads in turn; the best round of each counts. What is read was read
just before, so that the disk is in it for what is written alone. Roads:

- safetensors alone: every shard of every ELM loaded, one ELM's shards saved and put on the disk;
  no sum is computed, and a shard is let go before the next;
- plain torch: the same with the sum, in float32, shard by shard;
- ours: a merge job's average, summed in float64, checked, put on the disk and renamed.

Memory is the peak of a process of its own beyond what it had after importing everything.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evomerge.merging.checkpoint.average import average
from evomerge.merging.checkpoint.files import INDEX_FILE

WIDTH = 4096
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def write_elm(folder: Path, seed: int, shards: int, megabytes: int, dtype: torch.dtype) -> Path:
    """Random tensors of 4096 columns, eight a shard."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "synthetic"}))
    (folder / "elm.json").write_text(json.dumps({"format": 1, "seed_hash": "0" * 64}))
    generator = torch.Generator().manual_seed(seed)
    rows = megabytes * 2**20 // (8 * WIDTH * dtype.itemsize)
    place = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        names = [f"model.layers.{shard}.part{part}.weight" for part in range(8)]
        tensors = {n: torch.randn(rows, WIDTH, generator=generator).to(dtype) for n in names}
        save_file(tensors, folder / file, {"format": "pt"})
        place |= dict.fromkeys(names, file)
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": place}))
    return folder


def shard_names(elm: Path) -> list[str]:
    return sorted(path.name for path in elm.glob("*.safetensors"))


def safetensors_alone(elms: Sequence[Path], out: Path) -> None:
    for name in shard_names(elms[0]):
        first = load_whole(elms[0] / name)
        for elm in elms[1:]:
            load_whole(elm / name)
        save(first, out, name)


def plain_torch(elms: Sequence[Path], out: Path) -> None:
    for name in shard_names(elms[0]):
        total: dict[str, Tensor] = {}
        for elm in elms:
            for key, value in load_whole(elm / name).items():
                part = value.float() / len(elms)
                total[key] = total[key].add_(part) if key in total else part
        dtype = load_whole(elms[0] / name)[next(iter(total))].dtype
        save({key: value.to(dtype) for key, value in total.items()}, out, name)


def load_whole(file: Path) -> dict[str, Tensor]:
    """Into memory: what safetensors maps is read when it is touched."""
    return {key: value.clone() for key, value in load_file(file).items()}


def save(tensors: Mapping[str, Tensor], out: Path, name: str) -> None:
    out.mkdir(exist_ok=True)
    save_file(dict(tensors), out / name, {"format": "pt"})
    number = os.open(out / name, os.O_RDONLY)
    os.fsync(number)
    os.close(number)


def ours(elms: Sequence[Path], out: Path) -> None:
    average(elms, np.full(len(elms), 1 / len(elms)), out)


ROADS: Mapping[str, Callable[[Sequence[Path], Path], None]] = {
    "safetensors alone": safetensors_alone,
    "plain torch": plain_torch,
    "ours": ours,
}


def peak(road: str, elms: Sequence[Path], out: Path) -> int:
    """Bytes at most of a process that runs a road, beyond what it began with."""
    command = [sys.executable, __file__, "--peak", road, *map(str, elms), str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(ran.stdout)


def print_peak(road: str, elms: Sequence[Path], out: Path) -> None:
    Path("/proc/self/clear_refs").write_text("5")
    before = memory()
    ROADS[road](elms, out)
    print(memory() - before)


def memory() -> int:
    """The peak so far, in bytes. Linux."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise RuntimeError("no VmHWM in /proc/self/status")
    return int(found.group(1)) * 1024


def compare(elms: Sequence[Path], folder: Path, rounds: int) -> dict[str, float]:
    """Seconds of the best round of each road."""
    best = dict.fromkeys(ROADS, float("inf"))
    for _ in range(rounds):
        for name, road in ROADS.items():
            started = time.perf_counter()
            road(elms, folder / name)
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--elms", type=int, default=4)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--shard-mb", type=int, default=256)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        elms = [
            write_elm(
                folder / f"elm{number}",
                number,
                options.shards,
                options.shard_mb,
                DTYPES[options.dtype],
            )
            for number in range(options.elms)
        ]
        ours(elms[:1], folder / "ours")  # compiles and loads what is loaded once
        seconds = compare(elms, folder, options.rounds)
        shard = options.shard_mb * 2**20
        gigabytes = (options.elms + 1) * options.shards * shard / 1e9
        print(
            f"{options.elms} ELMs of {options.shards} shards of {options.shard_mb} MiB, "
            f"{options.dtype}: {gigabytes:.2f} GB read and written"
        )
        print(f"{'':20}{'seconds':>10}{'GB/s':>8}{'of safetensors':>16}{'peak, in shards':>18}")
        for name, own in seconds.items():
            used = peak(name, elms, folder / name) / shard
            share = seconds["safetensors alone"] / own
            print(f"{name:20}{own:10.2f}{gigabytes / own:8.2f}{share:15.0%} {used:17.2f}")
        print("aims: at least 70% of safetensors alone, at a peak of about 2 shards")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        *inputs, target = map(Path, sys.argv[3:])
        print_peak(sys.argv[2], inputs, target)
    else:
        main()
