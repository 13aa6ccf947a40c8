"""What other searches for merges reach, and take, on our pool, data and budget.

    python -m benchmarks.peers [--quick | --repository FOLDER] [--targets number-pt ...]
        [--peers ours peft ...] [--experts 12] [--budget 96] [--seed 7] [--threads 1]

Out of domain: a target's own expert is not in the pool. Every peer runs in a process of its own
(and, where it needs other packages, an environment of its own, made below ~/.cache/evomerge/peers
when first used; it sees the torch of the running one), is given the same adapters, search rows and
number of evaluations, and hands back a model; one scorer takes all of them through the held-out
rows, which no peer sees. A peer that cannot run here stands in the table with its error. Needs
`.[local]`, pip's index, and `python -m benchmarks.repository` (--quick: that one's).
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.peers.environments import EnvironmentFailedError, ensure
from benchmarks.peers.running import run_child
from benchmarks.peers.scoring import UnreadableModelError, score, score_report
from benchmarks.peers.table import Line, legend, lines
from benchmarks.peers.task import EncodedRow, Task, encoded, searched_and_proof
from examples.base import cache_dir
from transformers import AutoConfig, AutoTokenizer

from benchmarks.repository import NotBuiltError, Repository, open_repository
from evomerge.connectors.local.rows import RowEncoder

PROOF_SHARE = 0.25


def chosen_experts(repository: Repository, target: str, count: int) -> dict[str, Path]:
    """The target's relatives (same kind of task, or same language) and others, in turn."""
    pool = {name: path for name, path in repository.pool.items() if name != target}
    related = [name for name in pool if set(target.split("-")) & set(name.split("-"))]
    others = [name for name in pool if name not in related]
    mixed = [name for pair in zip(related, others, strict=False) for name in pair]
    order = mixed + [name for name in pool if name not in mixed]
    return {name: pool[name] for name in order[:count]}


def task_of(
    repository: Repository, target: str, args: argparse.Namespace
) -> tuple[Task, list[EncodedRow]]:
    """What the peers are given, and the held-out rows, which they are not."""
    config = AutoConfig.from_pretrained(repository.base)
    tokenizer = AutoTokenizer.from_pretrained(repository.base)
    encoder = RowEncoder(tokenizer, config.max_position_embeddings)
    known = repository.rows(target, "search")
    search, proof = searched_and_proof(known, PROOF_SHARE, args.seed, encoder)
    task = Task(
        base=repository.base,
        experts=chosen_experts(repository, target, args.experts),
        search=search,
        proof=proof,
        proof_share=PROOF_SHARE,
        budget=args.budget,
        population=args.population,
        seed=args.seed,
        threads=args.threads,
    )
    return task, encoded(repository.rows(target, "held_out"), encoder)


def line_of(peer: Peer, task: Task, held_out: list[EncodedRow], args: argparse.Namespace) -> Line:
    """Run a peer and score its model."""
    try:
        python = ensure(peer.environment, args.home / "environments")
    except EnvironmentFailedError as error:
        return Line(peer.name, None, None, f"cannot be installed here: {error}")
    folder = args.home / "runs" / peer.name
    run = run_child(python, peer.script, task, folder, options=peer.options, limit=args.limit)
    if run.report is None:
        return Line(peer.name, run, None, f"{run.failure} (see {folder / 'log.txt'})")
    try:
        return Line(peer.name, run, score_report(run.report, task.base, held_out))
    except UnreadableModelError as error:
        return Line(peer.name, run, None, str(error))


def found(
    peers: list[Peer], task: Task, held_out: list[EncodedRow], args: argparse.Namespace
) -> Iterator[Line]:
    """The base, the expert that is best on the search rows, and every peer."""
    yield Line("base", None, score(task.base, held_out))
    best = min(
        task.experts.values(), key=lambda path: score(task.base, task.search, adapter=path).mean
    )
    yield Line("best expert", None, score(task.base, held_out, adapter=best), best.name)
    for peer in peers:
        print(f"{peer.name}: {peer.what}", flush=True)
        yield line_of(peer, task, held_out, args)


def main() -> int:
    """Run them and print a table a target."""
    args = _arguments()
    try:
        repository = open_repository(args.repository, quick=args.quick)
    except NotBuiltError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    targets = args.targets or repository.members.reported[:1]
    unknown = [name for name in targets if name not in repository.tasks]
    if unknown:
        print(f"error: --targets: the repository has no {', '.join(unknown)}", file=sys.stderr)
        return 2
    peers = [peer for peer in PEERS if peer.name in args.peers]
    for target in targets:
        task, held_out = task_of(repository, target, args)
        rows = list(found(peers, task, held_out, args))
        title = (
            f"{target}: {len(task.experts)} experts, {len(task.search)} search rows, "
            f"{len(held_out)} held out, budget {task.budget}, population {task.population}, "
            f"seed {task.seed}, threads {task.threads}"
        )
        for line in lines(title, rows, task.seed):
            print(line, flush=True)
    print("\n" + "\n".join(textwrap.wrap(legend(), 100)))
    return 0


def _arguments() -> argparse.Namespace:
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the quick repository")
    parser.add_argument("--repository", type=Path, help="folder of a built repository")
    parser.add_argument("--targets", nargs="+", help="by default the first reported one")
    parser.add_argument("--peers", nargs="+", choices=names, default=names, metavar="PEER")
    parser.add_argument("--experts", type=int, default=12)
    parser.add_argument("--budget", type=int, default=96, help="evaluations of a candidate")
    parser.add_argument("--population", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of torch, in every peer")
    parser.add_argument("--limit", type=float, default=1800, help="seconds a peer at most")
    parser.add_argument("--home", type=Path, default=cache_dir() / "peers")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
