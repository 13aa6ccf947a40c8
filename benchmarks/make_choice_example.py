"""Write the second demo's dataset: which of four is a currency's name in Spanish?

    python benchmarks/make_choice_example.py

writes examples/data/currency-es-choice.jsonl: the names of CLDR, through Babel, each beside three
others drawn from the same list. Needs `.[recipe]`.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.example_tasks import TARGET, rows_of

FILE = Path(__file__).resolve().parents[1] / "examples" / "data" / f"{TARGET.name}-choice.jsonl"
ROWS, OPTIONS, SEED = 160, 4, 0


def rows() -> list[dict[str, object]]:
    """The dataset, options in a seeded order."""
    shuffled = random.Random(SEED)
    asked = rows_of(TARGET)
    names = sorted({row.completion for row in asked})
    found: list[dict[str, object]] = []
    for row in asked[:ROWS]:
        others = shuffled.sample([name for name in names if name != row.completion], OPTIONS - 1)
        options = [row.completion, *others]
        shuffled.shuffle(options)
        found.append({"prompt": row.prompt, "choices": options, "answer": row.completion})
    return found


def main() -> None:
    """Write the file."""
    lines = [json.dumps(row, ensure_ascii=False) for row in rows()]
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines)} rows in {FILE}")


if __name__ == "__main__":
    main()
