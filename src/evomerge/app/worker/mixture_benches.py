"""Forests made ready for jobs over what their ELMs say: each model reads each row once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.app.schemas.inputs import JobInputs, SeedInput
from evomerge.app.services.storage import LOG_PROBS
from evomerge.app.settings import Settings
from evomerge.app.worker.checkpoint_benches import check_unchanged
from evomerge.app.worker.errors import JobError, StoppedError
from evomerge.app.worker.inputs import Data, Side
from evomerge.app.worker.mixture_bench import SEED, MixtureBench, ReadSide
from evomerge.app.worker.order import Order
from evomerge.app.worker.teller import Teller
from evomerge.app.worker.workbench import Prepared
from evomerge.connectors.base import Usage

if TYPE_CHECKING:
    from evomerge.connectors.local.forest.elms import Elms
    from evomerge.connectors.local.forest.gathering import Gathering
    from evomerge.connectors.local.rows import Row
    from evomerge.evaluation.objective import FloatArray


@dataclass(frozen=True)
class MixtureBenches:
    """Makes benches; what was read stays on the disk, and no model in memory.

    Attributes:
        settings: of the deployment.
        clock: seconds, for the usage.
    """

    settings: Settings
    clock: Callable[[], float] = time.perf_counter

    def prepare(self, order: Order, data: Data, teller: Teller) -> Prepared:
        """The forest of a job, whose models have read every row. For a thread.

        Raises:
            JobError: the job has no forest, the seed or an ELM has gone or changed, the budget is
                too small, or torch is not installed.
            StoppedError: a stop was asked for; what was read is kept.
            ConnectorError: a model or an example cannot be read.
        """
        seed = order.inputs.seed
        if seed is None:
            raise JobError("spec_not_understood", "the job has no forest")
        check_unchanged(order.inputs, seed)
        begun = self.clock()
        search, held_out, tokens = self._read(order, seed, data, teller)
        bench = MixtureBench(order.spec, order.inputs, seed, search, held_out)
        usage = Usage(tokens=tokens, seconds=self.clock() - begun)
        return Prepared(bench, data, baselines=bench.baselines(), reading=usage)

    def _read(
        self, order: Order, seed: SeedInput, data: Data, teller: Teller
    ) -> tuple[ReadSide, ReadSide, int]:
        """Both sides, and the tokens that were not known before."""
        try:
            # Here, not above: the service must do without torch until a job needs it.
            from evomerge.connectors.local.forest.cache import LogProbCache
            from evomerge.connectors.local.forest.gathering import Gathering
            from evomerge.connectors.local.rows import Row
        except ModuleNotFoundError as error:
            raise JobError(
                "not_installed",
                f"reading needs {error.name}, which this worker lacks: "
                "pip install 'evo-merging[local]'",
            ) from error
        elms = self._elms(order.inputs, seed)
        searched = _rows(order, elms, data.search)
        held_out = _rows(order, elms, data.held_out)
        gathering = Gathering(
            elms,
            [Row(row.tokens, 1) for row in (*searched, *held_out)],
            LogProbCache(self.settings.data_dir / LOG_PROBS),
            self.settings.batch_tokens,
        )
        read = _run(order, gathering, teller)
        first, second = read[: len(searched)], read[len(searched) :]
        return (
            _read_side(data.search, first, searched),
            _read_side(data.held_out, second, held_out),
            gathering.tokens,
        )

    def _elms(self, inputs: JobInputs, seed: SeedInput) -> Elms:
        """The seed, then the ELMs; one of them in memory at a time."""
        from evomerge.connectors.local.forest.elms import Elm, Elms

        members = [
            Elm(expert.name, folder, expert.content_hash)
            for folder, expert in zip(inputs.folders, inputs.experts, strict=True)
        ]
        taken = any(member.name == SEED for member in members)
        name = f"{SEED}:{seed.content_hash[:12]}" if taken else SEED
        settings = self.settings
        return Elms(
            [Elm(name, seed.path, seed.content_hash), *members],
            device=settings.device,
            dtype=settings.dtype,
            threads=settings.threads,
            memory_bytes=0,
        )


def _run(order: Order, gathering: Gathering, teller: Teller) -> list[FloatArray]:
    """Read within the budget.

    Raises:
        JobError: it is too small.
        StoppedError: a stop was asked for.
    """
    from evomerge.connectors.local.errors import ScoringCancelledError

    budget = order.spec.budget
    if budget.tokens is not None and gathering.planned > budget.tokens:
        raise JobError(
            "budget_too_small",
            f"budget.tokens={budget.tokens}: the seed and the ELMs have {gathering.planned} tokens "
            "to read before anything is searched",
            "budget.tokens",
        )
    late = False

    def stopped() -> bool:
        nonlocal late
        late = budget.seconds is not None and teller.seconds >= budget.seconds
        progress = {
            "stage": "reading",
            "tokens": gathering.tokens,
            "planned_tokens": gathering.planned,
        }
        return teller.tell(progress) or late

    try:
        return gathering.run(stopped)
    except ScoringCancelledError as error:
        if late and not teller.stopping:
            raise JobError(
                "budget_too_small",
                f"budget.seconds={budget.seconds} was reached before the seed and the ELMs had "
                "read every example; what was read is kept",
                "budget.seconds",
            ) from error
        raise StoppedError from error


def _rows(order: Order, elms: Elms, side: Side) -> list[Row]:
    """Rows of a side, as the weights of the forest would be scored on them."""
    from evomerge.connectors.local.rows import RowEncoder

    base, objective = elms.any(), order.spec.objective
    encoder = RowEncoder(
        base.tokenizer,
        base.context_tokens,
        context_tokens=objective.context_tokens,
        answer_prefix=objective.answer_prefix,
        end_of_text=objective.end_of_text,
    )
    return [encoder.scored(example) for example in side.examples]


def _read_side(side: Side, read: Sequence[FloatArray], rows: Sequence[Row]) -> ReadSide:
    return ReadSide(side, tuple(read), tuple(row.scored for row in rows))
