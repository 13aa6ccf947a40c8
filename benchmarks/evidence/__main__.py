"""Does it merge better than everything else: one table a setting, with intervals and tests.

    python -m benchmarks.evidence [--pool repository] [--setting out-of-domain in-domain robustness]
        [--methods default paper lorahub ...] [--seeds 3] [--evaluations 1200] [--quick] [--write]

Says what it will cost, measures what is not recorded yet, and prints every setting's table. The
repository of experts comes from `python -m benchmarks.repository`. --pool real needs --experts and
--data, and hours. --write puts the tables into docs/results.md. --quick shows that it runs.
Records are kept below ~/.cache/evomerge/evidence. Needs `.[local,recipe,baselines]`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from benchmarks.evidence.ablations import ablations
from benchmarks.evidence.methods import METHODS, Method, methods
from benchmarks.evidence.page import write_section
from benchmarks.evidence.plan import costs, plan_lines, speed_of
from benchmarks.evidence.pools import PoolError, open_pool
from benchmarks.evidence.records import Records
from benchmarks.evidence.report import report
from benchmarks.evidence.running import Sizes
from benchmarks.evidence.settings import SETTINGS, Case, cases
from benchmarks.evidence.work import Work, measure
from examples.base import cache_dir

from benchmarks.repository import NotBuiltError

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results.md"
# The paper's budget, so that its recipe is the published one.
EVALUATIONS, QUICK_EVALUATIONS = 1200, 120
SEARCH_ROWS, HELD_OUT_ROWS = 32, 96


def main() -> int:
    """Run it."""
    args = _arguments()
    try:
        pool = open_pool(
            args.pool,
            quick=args.quick,
            repository=args.repository,
            experts=args.experts,
            data=args.data,
        )
    except (PoolError, NotBuiltError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begun:6.0f} s] {line}", flush=True)

    evaluations = args.evaluations or (QUICK_EVALUATIONS if args.quick else EVALUATIONS)
    sizes = Sizes(evaluations, args.search_rows, args.held_out_rows)
    home = args.home / pool.digest
    records = Records(home / "records.jsonl")
    for setting in args.setting:
        title = f"{pool.name}, {setting}"
        # Seed by seed, so that a run which was ended has every case.
        works = [
            Work(pool, case, seed, sizes, _methods(args, case, evaluations), records.path, home)
            for seed in range(1, args.seeds + 1)
            for case in cases(pool, setting)
        ]
        if not args.report_only:
            known = records.read()
            speed = speed_of([*known.values()], args.processes)
            for line in plan_lines(title, works, costs(works, known), speed):
                print(line, flush=True)
            measure([work for work in works if work.missing(known)], args.processes, say)
        known = records.read()
        found = [record for work in works for record in work.found(known)]
        asked = [method.name for method in works[0].methods]
        text = report(title, found, asked, len(works), _command(args, setting))
        print(f"\n{text}\n", flush=True)
        if args.write:
            write_section(RESULTS, title, text)
    return 0


def _methods(args: argparse.Namespace, case: Case, evaluations: int) -> tuple[Method, ...]:
    if case.setting == "ablations":
        return tuple(ablations(case, evaluations))
    return tuple(methods(args.methods, case, evaluations))


def _command(args: argparse.Namespace, setting: str) -> str:
    """What prints one setting's table again."""
    words = ["python", "-m", "benchmarks.evidence", "--setting", setting]
    if args.pool != "repository":
        words += ["--pool", args.pool, "--experts", "DIR", "--data", "DIR"]
    if args.repository:
        words += ["--repository", "DIR"]
    words += ["--seeds", str(args.seeds)]
    if args.evaluations:
        words += ["--evaluations", str(args.evaluations)]
    if args.quick:
        words.append("--quick")
    return shlex.join(words)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pool", choices=["repository", "real"], default="repository")
    parser.add_argument("--repository", type=Path, help="its folder, where it is another one")
    parser.add_argument("--experts", type=Path, help="of the real pool: folder of adapters")
    parser.add_argument("--data", type=Path, help="of the real pool: folder of JSONL files")
    parser.add_argument("--setting", nargs="+", choices=SETTINGS, default=list(SETTINGS[:1]))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, help="candidates of each search")
    parser.add_argument("--search-rows", type=int, default=SEARCH_ROWS, help="of each task")
    parser.add_argument("--held-out-rows", type=int, default=HELD_OUT_ROWS, help="of each task")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--home", type=Path, default=cache_dir() / "evidence", help="of records")
    parser.add_argument("--quick", action="store_true", help="the small repository")
    parser.add_argument("--report-only", action="store_true", help="of what is recorded")
    parser.add_argument("--write", action="store_true", help="into docs/results.md as well")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
