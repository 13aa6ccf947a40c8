"""Which search parameters do best at equal budget: the evidence behind `preset: default`.

    python -m benchmarks.search_defaults [--targets country-it language-pt] [--evaluations 96]
        [--variants "preset default" paper]

Out-of-domain, on the shipped pool: each target's own expert is left out of the pool, and its
task is searched on 24 rows and proven on the rows that follow. The targets here are not the
demo's, so that the demo's own held-out data chose nothing. Prints each variant's held-out
cross-entropy (nats an answer token), its best search loss after the probe, every 24 evaluations
more and at the end, and last the held-out losses as shares of the base's. Needs
`.[local,recipe]`; about a minute a variant and target on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.example_tasks import EXPERTS, Task, rows_of
from examples.base import ensure_base

from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.method import build_optimizer
from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.evaluation.example import Example
from evomerge.merging.lora.pool import LoraPool, stack_folders
from evomerge.merging.lora.space import LoraSpace
from evomerge.optimizers import Candidate
from evomerge.optimizers.candidate import base, uniform

POOL = Path(__file__).resolve().parents[1] / "examples" / "pool"
SEARCH_ROWS, HELD_OUT_ROWS = 24, 60


def variants(evaluations: int) -> dict[str, dict[str, Any]]:
    """The searches to compare, by name; every one spends `evaluations` after the probe."""

    def scaling(share: float = 1.0, **fields: Any) -> dict[str, Any]:
        return {"evaluations": round(share * evaluations), **fields}

    def method(**fields: Any) -> dict[str, Any]:
        return {"name": "evo-merging", **fields}

    def only(**fields: Any) -> dict[str, Any]:
        return method(stages=["scaling"], patience=1000, scaling=scaling(**fields))

    third = {"evaluations": evaluations // 3}
    quarter = {"evaluations": evaluations // 4}
    return {
        "preset default": method(scaling=scaling(0.75), denoising=quarter),
        "paper, factor": method(
            preset="paper",
            population=8,
            denoising=third,
            scaling={"evaluations": evaluations - evaluations // 3},
        ),
        "exact, from uniform, sigma .1": only(start="uniform", sigma=0.1),
        "exact, from uniform, sigma .2": only(start="uniform", sigma=0.2),
        "exact, from best, sigma .1": only(start="best_expert", sigma=0.1),
        "exact, from best, sigma .2": only(start="best_expert", sigma=0.2),
        "exact, from best, sigma .2, no L1": only(start="best_expert", sigma=0.2, l1=0.0),
        "exact, scaling then denoising": method(
            stages=["scaling", "denoising"],
            patience=1000,
            scaling=scaling(0.75, start="best_expert", sigma=0.2),
            denoising={"evaluations": evaluations // 4, "sigma": 0.1},
        ),
        "exact, denoising then scaling": method(
            stages=["denoising", "scaling"],
            patience=1000,
            scaling=scaling(0.75, start="best_expert", sigma=0.2),
            denoising={"evaluations": evaluations // 4, "sigma": 0.1},
        ),
    }


@dataclass(frozen=True)
class Bench:
    """One target with the pool that lacks its expert."""

    base: BaseModel
    pool: LoraPool
    search: list[Example]
    held_out: list[Example]

    def loss(self, composition: Any, candidates: list[Candidate], rows: list[Example]) -> Any:
        """Mean losses, (candidates,)."""
        evaluator = LocalEvaluator(self.base, LoraSpace(self.pool, composition))
        return asyncio.run(evaluator.score(candidates, rows)).means()


def bench(model: BaseModel, pool: Path, target: Task) -> Bench:
    """The target's rows, and every shipped expert but its own."""
    folders = [pool / t.name for t in EXPERTS if t != target]
    rows = [Example(r.prompt, r.completion) for r in rows_of(target, seed=1)]
    stacked = stack_folders([folder for folder in folders if folder.exists()])
    held_out = rows[SEARCH_ROWS : SEARCH_ROWS + HELD_OUT_ROWS]
    return Bench(model, stacked, rows[:SEARCH_ROWS], held_out)


def run(bench: Bench, method: dict[str, Any], seed: int) -> tuple[list[float], Candidate, str]:
    """(best search loss after each evaluation, the winner, the composition)."""
    spec = MergeJobSpec.model_validate(
        {
            "pool": "shipped",
            "objective": {"datasets": [{"dataset": "target"}]},
            "method": method,
            "seed": seed,
        }
    )
    optimizer = build_optimizer(spec, bench.pool.size)
    evaluator = LocalEvaluator(bench.base, LoraSpace(bench.pool, spec.composition))
    curve: list[float] = []
    while not optimizer.done:
        asked = optimizer.ask()
        losses = asyncio.run(evaluator.score(asked, bench.search)).means()
        optimizer.tell(asked, losses)
        curve.extend(float(x) for x in losses)
    assert optimizer.best is not None
    best = list(np.minimum.accumulate(curve))
    return best, optimizer.best.candidate, spec.composition


def main() -> None:
    """Run every variant on every target and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", type=Path, default=POOL)
    parser.add_argument("--targets", nargs="+", default=["country-it", "language-pt", "number-es"])
    parser.add_argument("--variants", nargs="+", help="how their names begin; all by default")
    parser.add_argument("--evaluations", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    model = load_base(ensure_base(), threads=args.threads)
    table: dict[str, list[float]] = {}
    begins = tuple(args.variants or [""])
    searches = {k: v for k, v in variants(args.evaluations).items() if k.startswith(begins)}
    for name in args.targets:
        kind, form = name.split("-")
        here = bench(model, args.pool, Task(kind, form))
        size = here.pool.size
        plain = here.loss("exact", [base(size), uniform(size)], here.held_out)
        table.setdefault("uniform average", []).append(plain[1] / plain[0])
        print(f"\n{name}: base {plain[0]:.3f}, uniform {plain[1]:.3f} (held out), N={size}")
        for label, method in searches.items():
            ratios = []
            for seed in range(1, args.seeds + 1):
                start = time.perf_counter()
                curve, winner, composition = run(here, method, seed)
                held = float(here.loss(composition, [winner], here.held_out)[0])
                ratios.append(held / plain[0])
                places = [*range(size - 1, len(curve) - 1, 24), len(curve) - 1]
                steps = " ".join(f"{curve[place]:.3f}" for place in places)
                spent = time.perf_counter() - start
                print(
                    f"  {label:34} held out {held:.3f}  search {steps}  {spent:.0f} s", flush=True
                )
            table.setdefault(label, []).append(float(np.mean(ratios)))
    print(f"\nHeld-out loss over base's, {' '.join(args.targets)}, and their mean:")
    for label, ratios in sorted(table.items(), key=lambda item: float(np.mean(item[1]))):
        print(f"  {label:34} {' '.join(f'{r:.3f}' for r in ratios)}   {np.mean(ratios):.3f}")


if __name__ == "__main__":
    main()
