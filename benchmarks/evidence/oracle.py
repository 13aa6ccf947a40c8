"""What each expert alone loses on held-out rows: the choice of experts that the rules are given.

The paper helped its white-box baselines with such a preselection where the pool is large; here it
is as good as any can be, for it reads the held-out rows themselves.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.evidence.methods import TOP_K
from benchmarks.evidence.records import key_of
from benchmarks.evidence.running import Bench, flat

from evomerge.merging.storing import written_whole


def oracle(bench: Bench, home: Path) -> list[str]:
    """The `TOP_K` experts that alone lose least, best first; kept in a folder below `home`."""
    rows = [(row.prompt, row.completion) for row in flat(bench.held_out)]
    folder = home / key_of([bench.pool.digest, bench.case.experts, rows])
    file = folder / "losses.json"
    if not file.exists():
        losses = bench.losses_alone()
        with written_whole(folder) as fresh:
            (fresh / file.name).write_text(json.dumps(losses), encoding="utf-8")
    losses = json.loads(file.read_text(encoding="utf-8"))
    return sorted(losses, key=lambda name: (losses[name], name))[:TOP_K]
