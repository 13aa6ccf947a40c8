"""Speed of scoring a LoRA population beside a bare batched forward of its base.

    python benchmarks/forward.py --base FOLDER [--threads 2]
        [--sets "short rows" "long rows" | --rows FILE.jsonl]

Bare is the base's decoder over padded batches: no adapters, no vocabulary projection, no losses.
Two more lines have the base alone as well: bare with the vocabulary projection at the answer
positions, and bare with short rows sharing lines as ours do. All run in turns in one process and
every figure is the median of its rounds, so that what else the machine does falls on all. Tokens
are real ones, padding not counted. The CPU columns count processor time, which a busy machine
disturbs less than the clock; they hold for --threads 1 above all, for idle threads spin.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.batches import batches, width
from evomerge.connectors.local.forward import answer_nll, cut
from evomerge.connectors.local.layout import lay_out
from evomerge.connectors.local.rows import Row, RowEncoder
from evomerge.evaluation.example import Example
from evomerge.merging.lora.population import Factors, Population

EXPERTS, RANK = 10, 8
SHAPES = {"short rows": (8, 40, 8), "long rows": (160, 300, 40)}  # prompt from, to; answer


@dataclass(frozen=True)
class Spent:
    """Seconds of one run, by the clock and of the processor."""

    clock: float
    cpu: float


def main() -> None:
    options = _options()
    base = load_base(options.base, threads=options.threads)
    print(f"{base.name}, {base.dtype}, {base.threads} threads, {options.batch_tokens} batch tokens")
    for name, rows in _row_sets(base, options):
        _compare(base, name, rows, options)


def _compare(base: BaseModel, name: str, rows: Sequence[Row], options: argparse.Namespace) -> None:
    tokens = sum(len(row.tokens) for row in rows)
    answers = sum(row.scored for row in rows)
    side_by_side = width(tokens, options.batch_tokens)
    print(f"\n{name}: {len(rows)} rows, {tokens} tokens, {answers} of them answers")
    lengths = [len(row.tokens) - 1 for row in rows]
    padded = batches(lengths, 1, options.batch_tokens)
    runs: dict[str, Callable[[], object]] = {
        "bare": partial(_bare, base, rows, padded),
        "bare and projection": partial(_bare, base, rows, padded, project=True),
        "bare in shared lines": partial(_shared_lines, base, rows, options.batch_tokens),
    }
    work = dict.fromkeys(runs, tokens)
    for candidates in sorted({1, side_by_side}):
        for kind, rank in (("factor", RANK), ("exact", EXPERTS * RANK)):
            label = f"{kind} k={rank}, {candidates} at once"
            population = _population(base, candidates, rank, shared=kind == "exact")
            runs[label] = partial(
                answer_nll, base, population, rows, batch_tokens=options.batch_tokens
            )
            work[label] = tokens * candidates
    _report(_measure(runs, options.rounds), work)


def _measure(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[Spent]]:
    """Every run in turn, `rounds` times, after one round that is not counted."""
    spent: dict[str, list[Spent]] = {label: [] for label in runs}
    for number in range(rounds + 1):
        for label, run in runs.items():
            clock, cpu = time.perf_counter(), time.process_time()
            run()
            if number:
                found = Spent(time.perf_counter() - clock, time.process_time() - cpu)
                spent[label].append(found)
    return spent


def _report(spent: dict[str, list[Spent]], work: dict[str, int]) -> None:
    def speeds(label: str) -> tuple[float, float]:
        clock = median(each.clock for each in spent[label])
        cpu = median(each.cpu for each in spent[label])
        return work[label] / clock, work[label] / cpu

    bare = speeds("bare")
    print(f"{'':24}{'tokens/s':>10}{'of bare':>9}{'tokens/CPU s':>14}{'of bare':>9}")
    for label in spent:
        clock, cpu = speeds(label)
        print(f"{label:24}{clock:10.0f}{clock / bare[0]:9.1%}{cpu:14.0f}{cpu / bare[1]:9.1%}")


def _bare(
    base: BaseModel, rows: Sequence[Row], cut: Sequence[Sequence[int]], *, project: bool = False
) -> None:
    """Padded batches, by torch's own padding."""
    with base.running():
        for batch in cut:
            inputs = [torch.tensor(rows[index].tokens[:-1]) for index in batch]
            padded = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True)
            states = base.hidden(padded.to(base.device))
            if project:
                spans = [slice(rows[i].start - 1, len(rows[i].tokens) - 1) for i in batch]
                base.logits(torch.cat([states[n, span] for n, span in enumerate(spans)]))


def _shared_lines(base: BaseModel, rows: Sequence[Row], batch_tokens: int) -> None:
    with base.running():
        for batch in cut(base, rows, 1, batch_tokens):
            layout = lay_out([[rows[index] for index in line] for line in batch])
            base.hidden(layout.tokens, layout.positions)


def _population(base: BaseModel, candidates: int, rank: int, *, shared: bool) -> Population:
    """Random factors: `shared` as exact has them (one stack, own scales), else one pair each."""
    draw = torch.Generator().manual_seed(0)
    held = 1 if shared else candidates

    def factors(d_out: int, d_in: int) -> Factors:
        A = torch.randn(held, rank, d_in, generator=draw) * 0.01
        # As a transposed view, the way a space hands it over.
        B = torch.randn(held, rank, d_out, generator=draw).transpose(1, 2) * 0.01
        scale = torch.randn(candidates, rank, generator=draw) if shared else None
        return Factors(A.to(base.device), B.to(base.device), scale)

    return Population(
        candidates, {module: factors(*shape) for module, shape in base.linear_shapes().items()}
    )


def _row_sets(base: BaseModel, options: argparse.Namespace) -> list[tuple[str, list[Row]]]:
    if options.rows is None:
        return [(name, _synthetic(base, options.count, *SHAPES[name])) for name in options.sets]
    encoder = RowEncoder(base.tokenizer, base.context_tokens, context_tokens=options.context_tokens)
    with options.rows.open(encoding="utf-8") as lines:
        fields = [json.loads(line) for _, line in zip(range(options.count), lines, strict=False)]
    examples = [Example(row["prompt"], row["completion"]) for row in fields]
    return [(options.rows.name, [encoder.scored(example) for example in examples])]


def _synthetic(base: BaseModel, count: int, low: int, high: int, answer: int) -> list[Row]:
    """Random tokens; what they say does not change what they cost."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        prompt = int(rng.integers(low, high + 1))
        tokens = rng.integers(0, base.projection.out_features, prompt + answer)
        rows.append(Row(tuple(tokens.tolist()), prompt))
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--base", type=Path, required=True, help="folder of a base model")
    parser.add_argument("--rows", type=Path, help="JSONL of {prompt, completion}")
    parser.add_argument("--sets", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--count", type=int, default=32, help="rows of a set")
    parser.add_argument("--context-tokens", type=int, default=320)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    main()
