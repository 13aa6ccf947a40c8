"""The claims of Branch-Train-Merge (arXiv 2208.03306), tried on real text with small models.

    python -m benchmarks.btm [--tokens 750000] [--seeds 1 2 3] [--processes 2] [--quick]

Trains forests of eight domains of Debian's text, what they are compared with on equal tokens, and
prints perplexities, each claim's difference with an interval, and whether the paper's direction
was found. What was trained and scored is kept below ~/.cache/evomerge/btm, so that a run which was
ended goes on. Needs `.[local]`, apt-get and dpkg-deb. --quick only shows that it runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.btm.bench import open_bench
from benchmarks.btm.claims import findings
from benchmarks.btm.corpora import CorporaError, default_folder, ensure
from benchmarks.btm.plan import Settings, plan
from benchmarks.btm.report import report
from benchmarks.btm.systems import measure
from benchmarks.btm.workers import pool, train_all
from examples.base import cache_dir
from examples.documents import table

TOKENS = 750_000
QUICK: dict[str, Any] = {"tokens": 40_000, "seeds": (1, 2), "test_pieces": 4, "dev_pieces": 3}
QUICK |= {"hidden": 48, "layers": 2, "heads": 2, "intermediate": 96, "vocabulary": 1024}
QUICK |= {"dense_blocks": 4}


def main() -> int:
    """Run it."""
    args = _arguments()
    settings = Settings(tokens=args.tokens, seeds=tuple(args.seeds))
    if args.quick:
        settings = replace(settings, **QUICK)
    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begun:6.0f} s] {line}", flush=True)

    try:
        gathered = ensure(args.corpora)
    except CorporaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(gathered.values()))
    bench = open_bench(settings, {name: one.path for name, one in gathered.items()}, args.home)
    plans = [plan(settings, seed) for seed in settings.seeds]
    with pool(args.processes) as executor:
        train_all(executor, bench, [model for one in plans for model in one.models()], say)
        measured = measure(executor, bench, plans, say)
    print(f"\n{settings}")
    for line in report(measured, findings(measured, settings), settings, plans[0]):
        print(line)
    say("done")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a whole forest")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--quick", action="store_true", help="tiny models, to see that it runs")
    parser.add_argument("--corpora", type=Path, default=default_folder())
    parser.add_argument("--home", type=Path, default=cache_dir() / "btm")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
