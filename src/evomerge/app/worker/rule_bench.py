"""A pool whose task vectors are merged by a rule, as a job uses it. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from evomerge.app.schemas.methods import (
    BreadcrumbsMethod,
    DareLinearMethod,
    DareTiesMethod,
    DellaMethod,
    EmrMethod,
    RuleMethod,
    TaskArithmeticMethod,
    TiesMethod,
)
from evomerge.app.schemas.spec import MergeJobSpec, Metric
from evomerge.app.settings import Settings
from evomerge.app.worker.checkpoint_bench import (
    CheckpointBench,
    OneEvaluator,
    StoredCheckpoint,
)
from evomerge.app.worker.lora_bench import DTYPE, DTYPES, LoraBench, StoredAdapter, scoring
from evomerge.app.worker.workbench import StoredModel, Workbench
from evomerge.connectors.base import Evaluator
from evomerge.connectors.local.base_model import BaseModel
from evomerge.connectors.local.checkpoint_evaluator import CheckpointEvaluator
from evomerge.connectors.local.merged_weights import MergedWeights
from evomerge.connectors.local.rule_evaluator import RuleEvaluator
from evomerge.evaluation import Example
from evomerge.merging.checkpoint.files import read_checkpoint
from evomerge.merging.checkpoint.filling import Rounding
from evomerge.merging.checkpoint.lineage import Lineage
from evomerge.merging.checkpoint.space import CheckpointSpace
from evomerge.merging.checkpoint.writing import write_into
from evomerge.merging.lora.artifact import compressed_adapter
from evomerge.merging.lora.pool import LoraPool
from evomerge.merging.operators import rules
from evomerge.merging.rules.space import RuleSpace
from evomerge.merging.rules.vectors import ElmVectors, LoraVectors
from evomerge.optimizers import Candidate, FloatArray

_RULES: dict[type[RuleMethod], Callable[..., rules.Rule]] = {
    TaskArithmeticMethod: rules.TaskArithmetic,
    TiesMethod: rules.Ties,
    DareLinearMethod: rules.DareLinear,
    DareTiesMethod: rules.DareTies,
    DellaMethod: rules.Della,
    BreadcrumbsMethod: rules.Breadcrumbs,
    EmrMethod: rules.Emr,
}
_OF_THE_GRID = {"name", "top_k", "order", "scales", "densities"}


def build_rule(method: RuleMethod) -> rules.Rule:
    """The rule that a method asks for, with what is not its grid."""
    return _RULES[type(method)](**method.model_dump(exclude=_OF_THE_GRID))


class RuleBench:
    """A `Workbench` for a rule, over another that knows the same experts without it.

    What it makes is a whole checkpoint, or the adapter of a rank that is closest to it.

    Args:
        plain: the other.
        merging: the base, and what the rule makes of candidates.
        spec: of the job.
        settings: of the deployment.
        lineage: of the checkpoint of a candidate; None for none.
        compress: makes the adapter of a candidate instead; None for the checkpoint.
    """

    def __init__(
        self,
        plain: Workbench,
        merging: MergedWeights[RuleSpace],
        spec: MergeJobSpec,
        settings: Settings,
        *,
        lineage: Callable[[Candidate], Lineage] | None = None,
        compress: Callable[[Candidate], StoredModel] | None = None,
    ) -> None:
        self._plain = plain
        self._merging = merging
        self._scoring = scoring(spec, settings)
        self._dtype = None if spec.output.dtype is None else DTYPES[spec.output.dtype]
        self._lineage = lineage
        self._compress = compress
        self._merged = cache(self._make_merged)
        self._evaluator = cache(self._make_evaluator)

    @property
    def base_hash(self) -> str | None:
        return self._plain.base_hash

    def starts(self) -> Sequence[FloatArray]:
        return ()

    def check(self, metric: Metric, examples: Sequence[Example]) -> None:
        self._plain.check(metric, examples)

    def evaluator(self, metric: Metric) -> Evaluator:
        return self._evaluator(metric)

    def plain(self, metric: Metric) -> Evaluator:
        return self._plain.plain(metric)

    def merge(self, candidate: Candidate) -> StoredModel:
        if self._compress is not None:
            return self._compress(candidate)
        return StoredCheckpoint(self, candidate)

    def stored_evaluator(self, candidate: Candidate, metric: Metric) -> Evaluator:
        """Scores the checkpoint of a candidate, rounded as it is stored."""
        return OneEvaluator(self._merged(metric, self._dtype or "seed"), candidate)

    def write(self, candidate: Candidate, folder: Path) -> None:
        """The checkpoint of a candidate, into a folder that is there."""
        lineage = None if self._lineage is None else self._lineage(candidate)
        write_into(self._merging.space.recipe(candidate, self._dtype, lineage), folder)

    def _make_evaluator(self, metric: Metric) -> RuleEvaluator:
        return RuleEvaluator(self._merged(metric, None), self.plain(metric))

    def _make_merged(self, metric: Metric, dtype: Rounding) -> CheckpointEvaluator:
        return CheckpointEvaluator(self._merging, metric, dtype=dtype, **self._scoring)


def adapter_bench(
    base: BaseModel, pool: LoraPool, spec: MergeJobSpec, settings: Settings
) -> Workbench:
    """The bench that a spec's method takes over adapters.

    Raises:
        CheckpointError: a rule is asked for, and the base's files lack a weight that is adapted.
        ParameterError: a rule is asked for, and the base in memory is not what its files say.
    """
    adapters = LoraBench(base, pool, spec, settings)
    if not isinstance(spec.method, RuleMethod):
        return adapters
    checkpoint = read_checkpoint(settings.bases[base.name], base.name)
    space = RuleSpace(checkpoint, LoraVectors(pool), build_rule(spec.method), spec.seed)
    return RuleBench(
        adapters,
        MergedWeights(base, space),
        spec,
        settings,
        compress=_compress(adapters, space, spec),
    )


def elm_bench(
    plain: CheckpointBench,
    merging: MergedWeights[CheckpointSpace],
    method: RuleMethod,
    spec: MergeJobSpec,
    settings: Settings,
) -> RuleBench:
    """The bench of a rule over a forest, beside that of its plain candidates."""
    vectors = ElmVectors(merging.space)
    space = RuleSpace(merging.space.seed, vectors, build_rule(method), spec.seed)
    ruled = MergedWeights(merging.base, space)
    return RuleBench(plain, ruled, spec, settings, lineage=plain.lineage)


def _compress(
    adapters: LoraBench, space: RuleSpace, spec: MergeJobSpec
) -> Callable[[Candidate], StoredAdapter] | None:
    """Makes the adapter of a candidate, where a job asks for one."""
    rank, dtype = spec.output.rank, DTYPES[spec.output.dtype or DTYPE]
    if rank is None:
        return None
    return lambda candidate: StoredAdapter(
        adapters, compressed_adapter(space.updates(candidate), dtype, rank)
    )
