"""Which search parameters do best at equal budget: the evidence behind `preset: default`.

    python -m benchmarks.search_defaults [--size small] [--evaluations 500] [--seeds 2]
        [--targets number-da ago-cs] [--variants default paper] [--rows 48] [--held-out 100]

Out-of-domain, on the choosing targets of `benchmarks.repository`, of which no result is reported:
each target's own expert is not in the pool, its task is searched on its search rows and measured on
its held-out rows. Every variant may score the same number of candidates, and so of tokens, in all;
scoring each expert alone counts where the search learns from it. Prints, after each share of the
budget, the held-out cross-entropy (nats an answer token) of the candidate that was best by then,
and its search loss; last the means of both as shares of the base's loss. `-` stands where nothing
that may win was scored yet.

--size small is the whole repository's experts over a smaller base, with less training (made here,
once, in some minutes), quick a dozen experts, full the repository that is reported on. Needs
`.[local,recipe]`.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from benchmarks.repository.build import build
from benchmarks.repository.open import Repository, open_repository
from benchmarks.repository.settings import (
    Settings,
    default_home,
    folder_of,
    full_settings,
    quick_settings,
)
from transformers.utils import logging

from evomerge.app.schemas.presets import METHOD_PRESETS, filled
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.worker.method import build_optimizer
from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.evaluator import LocalEvaluator
from evomerge.evaluation.example import Example
from evomerge.merging.lora.pool import LoraPool, stack_folders
from evomerge.merging.lora.space import Composition, LoraSpace
from evomerge.optimizers import Best, Candidate
from evomerge.optimizers.candidate import base
from evomerge.optimizers.probe import averages_of

Json = dict[str, Any]
SHARES = (1 / 8, 1 / 4, 1 / 3, 1 / 2, 1)
_DIFFERENCES: dict[str, Json] = {
    "default": {},
    "all experts": {"top_k": None},
    "top_k 8": {"top_k": 8},
    "top_k 32": {"top_k": 32},
    "top_k 32, sigma .05": {"top_k": 32, "scaling": {"sigma": 0.05}},
    "top_k 64, sigma .05": {"top_k": 64, "scaling": {"sigma": 0.05}},
    "from the best": {"scaling": {"start": "best_expert"}},
    "from the average": {"scaling": {"start": "uniform"}},
    "all, from the best": {"top_k": None, "scaling": {"start": "best_expert"}},
    "sigma .2": {"scaling": {"sigma": 0.2}},
    "sigma .05": {"scaling": {"sigma": 0.05}},
    "L1 .05": {"scaling": {"l1": 0.05}},
    "scaling alone": {"stages": ["scaling"]},
    "denoising first": {"stages": ["denoising", "scaling"]},
}


def variants(evaluations: int, experts: int) -> dict[str, Json]:
    """Fields of the job spec, by name; each scores at most `evaluations` candidates that count."""
    paper = _sharing({"preset": "paper", **METHOD_PRESETS["paper"]}, evaluations)
    ours = {
        name: {
            "method": _after_known(filled(changed, METHOD_PRESETS["default"]), evaluations, experts)
        }
        for name, changed in _DIFFERENCES.items()
    }
    exact = {"method": paper, "composition": "exact"}
    return {**ours, "paper": {"method": paper}, "paper, exact": exact}


def _after_known(method: Json, evaluations: int, experts: int) -> Json:
    """The method with what the experts alone, and averages of the best, leave to its stages."""
    left = evaluations - experts
    if method["scaling"]["start"] == "best_few":
        left -= averages_of(min(method["top_k"] or experts, experts))
    return _sharing(method, left)


def _sharing(method: Json, evaluations: int) -> Json:
    """The method with its stages' budgets scaled to `evaluations` in all."""
    stages = method["stages"]
    whole = sum(method[stage]["evaluations"] for stage in stages)
    budgets = {
        stage: {"evaluations": evaluations * method[stage]["evaluations"] // whole}
        for stage in stages
    }
    return {"name": "evo-merging", **filled(budgets, method)}


@dataclass(frozen=True)
class Bench:
    """One target with the experts that it may use."""

    base: BaseModel
    pool: LoraPool
    search: list[Example]
    held_out: list[Example]

    def losses(self, how: Composition, asked: list[Candidate], rows: list[Example]) -> list[float]:
        """Mean losses, one a candidate."""
        evaluator = LocalEvaluator(self.base, LoraSpace(self.pool, how))
        means: list[float] = asyncio.run(evaluator.score(asked, rows)).means().tolist()
        return means

    def spec(self, fields: Json, seed: int) -> MergeJobSpec:
        """The job that a user would post."""
        job = {"pool": "pool", "objective": {"datasets": [{"dataset": "target"}]}, "seed": seed}
        return MergeJobSpec.model_validate(job | fields)

    def bests(self, spec: MergeJobSpec) -> Iterator[tuple[int, Best]]:
        """Search to the end: each best so far, and the candidates that counted until then."""
        optimizer = build_optimizer(spec, self.pool.size)
        evaluator = LocalEvaluator(self.base, LoraSpace(self.pool, spec.composition))
        counted = -optimizer.baseline_evaluations
        while not optimizer.done:
            asked = optimizer.ask()
            scores = asyncio.run(evaluator.score(asked, self.search))
            optimizer.tell(asked, scores.means())
            counted += len(asked)
            if optimizer.best is not None:
                yield counted, optimizer.best

    def curve(self, spec: MergeJobSpec, evaluations: int) -> list[tuple[float, float]]:
        """(held-out loss, search loss) of the best after each share of the evaluations."""
        found = list(self.bests(spec))
        curve = []
        for share in SHARES:
            best = next((b for count, b in reversed(found) if count <= share * evaluations), None)
            if best is None:
                curve.append((math.nan, math.nan))
            else:
                held = self.losses(spec.composition, [best.candidate], self.held_out)[0]
                curve.append((held, best.loss))
        return curve


def small_settings() -> Settings:
    """The whole repository's experts, as small and as little trained as those of the quick one."""
    full, quick = full_settings(), quick_settings()
    return replace(full, base=quick.base, expert=quick.expert)


_SIZES = {"quick": quick_settings, "small": small_settings, "full": full_settings}


def made(size: str, processes: int) -> Repository:
    """The repository of a size, made if it is not there."""
    settings = _SIZES[size]()
    folder = folder_of(settings, default_home())
    if not (folder / "repository.json").is_file():
        build(settings, folder, processes, print)
    return open_repository(folder)


def measured(bench: Bench, args: argparse.Namespace) -> Iterator[tuple[str, list[float]]]:
    """Run every variant with every seed: its curve, held out then search, over the base's loss."""
    plain = [base(bench.pool.size)]
    held, searched = (bench.losses("exact", plain, r)[0] for r in (bench.held_out, bench.search))
    print(f"N={bench.pool.size}, base {held:.3f} held out, {searched:.3f} search", flush=True)
    for name, fields in variants(args.evaluations, bench.pool.size).items():
        if args.variants and name not in args.variants:
            continue
        for seed in range(1, args.seeds + 1):
            begun = time.monotonic()
            curve = bench.curve(bench.spec(fields, seed), args.evaluations)
            values = [[h for h, _ in curve], [s for _, s in curve]]
            shown = " |".join(_row(some) for some in values)
            print(f"  {name:18}{seed:2}{shown} {time.monotonic() - begun:5.0f} s", flush=True)
            yield name, [x / held for x in values[0]] + [x / searched for x in values[1]]


def _row(values: list[float]) -> str:
    return "".join(f"{'-':>7}" if math.isnan(x) else f"{x:7.3f}" for x in values)


def main() -> None:
    """Run every variant on every target and print the table."""
    args = _arguments()
    logging.disable_progress_bar()
    repository = made(args.size, args.threads)
    model = load_base(repository.base, threads=args.threads)
    stacked = stack_folders(list(repository.pool.values()))
    table: dict[str, list[list[float]]] = {}
    print(f"After {', '.join(f'{share:.3g}' for share in SHARES)} of the budget: held out | search")
    for target in args.targets or repository.members.choosing:
        if target not in repository.members.choosing:
            raise SystemExit(f"{target} is no choosing target of the {args.size} repository")
        search = repository.rows(target, "search")[: args.rows]
        held_out = repository.rows(target, "held_out")[: args.held_out]
        print(f"{target}: ", end="")
        for name, ratios in measured(Bench(model, stacked, search, held_out), args):
            table.setdefault(name, []).append(ratios)
    print("\nMeans over targets and seeds, as shares of the base's loss: held out | search")
    for name, rows in sorted(table.items(), key=lambda item: float(np.mean(item[1], axis=0)[4])):
        means = np.mean(rows, axis=0).tolist()
        print(f"  {name:20}{_row(means[: len(SHARES)])} |{_row(means[len(SHARES) :])}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=_SIZES, default="small", help="of the repository")
    parser.add_argument("--targets", nargs="+", help="all choosing ones by default")
    parser.add_argument("--variants", nargs="+", help="their names; all by default")
    parser.add_argument("--evaluations", type=int, default=500, help="that a search may use")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=48, help="to search on")
    parser.add_argument("--held-out", type=int, default=100, help="rows to measure on")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    main()
