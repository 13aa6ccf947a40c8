"""What a measurement will cost, said before it begins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.evidence.records import Record
from benchmarks.evidence.running import flat
from benchmarks.evidence.work import Work
from transformers import AutoTokenizer

from evomerge.app.worker.method import build_optimizer
from evomerge.connectors.local.rows import RowEncoder


@dataclass(frozen=True)
class Cost:
    """Of one method on one case under one seed; tokens are those of prompts and answers."""

    method: str
    evaluations: int
    tokens: int


def costs(works: Sequence[Work], records: Mapping[str, Record]) -> list[Cost]:
    """Of all that is not recorded yet.

    Raises:
        ValidationError, InvalidParameterError: a method is not one that a job could have.
    """
    found = []
    for work in works:
        missing = work.missing(records)
        if not missing:
            continue
        tokens = _tokens(work)
        experts = len(work.case.experts)
        probed = False
        for method in missing:
            spec = work.bench.spec(method.spec)
            asked = build_optimizer(spec, experts, (), work.case.experts).planned_evaluations
            # The experts alone are scored once for all.
            asked, probed = asked - experts * probed, True
            found.append(Cost(method.name, asked, asked * tokens))
    return found


def plan_lines(
    title: str, works: Sequence[Work], planned: Sequence[Cost], speed: float | None
) -> Iterator[str]:
    """A line a method, and the whole.

    Args:
        speed: tokens a second of all processes together; None where nobody knows.
    """
    case = works[0].case
    yield (
        f"{title}: {len({work.case.name for work in works})} cases x "
        f"{len({work.seed for work in works})} seeds x {len(works[0].methods)} methods, "
        f"{len(case.experts)} experts"
    )
    for name in dict.fromkeys(cost.method for cost in planned):
        own = [cost for cost in planned if cost.method == name]
        evaluations = sum(cost.evaluations for cost in own)
        tokens = sum(cost.tokens for cost in own)
        yield f"  {name:28} {len(own):4} runs {evaluations:9,} evaluations {tokens:13,} tokens"
    total = sum(cost.tokens for cost in planned)
    about = f", about {total / speed / 60:.0f} minutes at the speed so far" if speed else ""
    yield f"  {len(planned)} runs to do, {total:,} tokens at most{about}"


def speed_of(records: Sequence[Record], processes: int) -> float | None:
    """Tokens a second that the recorded searches were scored at, by all processes."""
    seconds = sum(record.seconds for record in records)
    return processes * sum(record.tokens for record in records) / seconds if seconds else None


def _tokens(work: Work) -> int:
    """Of one candidate's search rows."""
    encoding = work.pool.encoding
    tokenizer = AutoTokenizer.from_pretrained(work.pool.base)
    cut = encoding.get("context_tokens")
    encoder = RowEncoder(tokenizer, cut or 10**6, context_tokens=cut)
    return sum(len(encoder.scored(row).tokens) for row in flat(work.bench.search))
