"""Everything that is missing, measured: a process a core, the records of each case kept at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.btm.workers import pool as processes
from benchmarks.evidence.methods import Method
from benchmarks.evidence.oracle import oracle
from benchmarks.evidence.pools import Pool
from benchmarks.evidence.records import Record, Records
from benchmarks.evidence.running import Bench, Sizes
from benchmarks.evidence.settings import Case

Say = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """Some methods on one case under one seed."""

    pool: Pool
    case: Case
    seed: int
    sizes: Sizes
    methods: tuple[Method, ...]
    records: Path
    home: Path

    @property
    def bench(self) -> Bench:
        """Where it is done."""
        return Bench(self.pool, self.case, self.seed, self.sizes)

    def found(self, records: Mapping[str, Record]) -> list[Record]:
        """What is recorded of it."""
        bench = self.bench
        keys = (bench.key(method) for method in self.methods)
        return [
            replace(records[key], method=method.name)
            for key, method in zip(keys, self.methods, strict=True)
            if key in records
        ]

    def missing(self, records: Mapping[str, Record]) -> list[Method]:
        """The methods that are not recorded."""
        bench = self.bench
        return [method for method in self.methods if bench.key(method) not in records]


def measure(works: Sequence[Work], count: int, say: Say) -> None:
    """Do all that is not recorded yet, in `count` processes of one thread each."""
    with processes(count) as executor:
        running = [executor.submit(do, work) for work in works]
        for number, future in enumerate(as_completed(running), start=1):
            say(f"{number}/{len(works)} {future.result()}")


def do(work: Work) -> str:
    """Measure what is missing of one piece of work; a line about it."""
    begun = time.monotonic()
    missing = work.missing(Records(work.records).read())
    bench = work.bench
    order = (
        oracle(bench, work.home / "oracle") if any(method.oracle for method in missing) else None
    )
    for method in missing:
        record = bench.run(method, order if method.oracle else None)
        Records(work.records).append(record)
    seconds = time.monotonic() - begun
    name = f"{work.case.setting} {work.case.name} seed {work.seed}"
    return f"{name}: {len(missing)} new, {seconds:.0f} s"
