"""Forests made ready for jobs over their weights, and kept for the next job over the same one."""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from typing import TYPE_CHECKING

from evomerge.app.schemas.inputs import JobInputs, SeedInput
from evomerge.app.schemas.methods import RuleMethod
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.settings import Settings
from evomerge.app.worker.benches import Recent
from evomerge.app.worker.errors import InputChangedError, JobError
from evomerge.app.worker.inputs import Data
from evomerge.app.worker.workbench import Prepared
from evomerge.merging.checkpoint.errors import CheckpointError
from evomerge.merging.checkpoint.files import content_hash, read_checkpoint

if TYPE_CHECKING:
    from evomerge.connectors.local.merged_weights import MergedWeights
    from evomerge.merging.checkpoint.space import CheckpointSpace


class CheckpointBenches:
    """Makes benches; the last forest stays: its seed in memory, its ELMs mapped.

    For one thread at a time.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._forests: Recent[Hashable, MergedWeights[CheckpointSpace]] = Recent(1)

    def warm_up(self) -> None:
        """See `LoraBenches.warm_up`."""
        with suppress(ModuleNotFoundError):
            import evomerge.app.worker.checkpoint_bench  # noqa: F401

    def prepare(self, spec: MergeJobSpec, inputs: JobInputs, data: Data) -> Prepared:
        """The forest of a job, loaded and checked, and the posterior of its domain estimated.

        Raises:
            JobError: the job has no forest, or the seed or an ELM has gone or changed; or torch
                is not installed.
            ConnectorError: the seed cannot be loaded, or an ELM or an example cannot be read.
            MergingError: an ELM does not fit.
        """
        if inputs.seed is None:
            raise JobError("spec_not_understood", "the job has no forest")
        try:
            # Here, not above: the service must do without torch until a job needs it.
            from evomerge.app.worker.checkpoint_bench import CheckpointBench
            from evomerge.app.worker.rule_bench import elm_bench
        except ModuleNotFoundError as error:
            raise JobError(
                "not_installed",
                f"merging checkpoints needs {error.name}, which this worker lacks: "
                "pip install 'evo-merging[local]'",
            ) from error
        seed = inputs.seed
        hashes = (seed.content_hash, *(expert.content_hash for expert in inputs.experts))
        merging = self._forests.get(
            (seed.path, hashes, spec.layer_groups), lambda: self._load(spec, inputs, seed)
        )
        bench = CheckpointBench(merging, spec, inputs, self._settings, data.search.examples)
        baselines = bench.baselines()
        if isinstance(spec.method, RuleMethod):
            ruled = elm_bench(bench, merging, spec.method, spec, self._settings)
            return Prepared(ruled, data, baselines=baselines)
        return Prepared(bench, data, baselines=baselines)

    def _load(
        self, spec: MergeJobSpec, inputs: JobInputs, seed: SeedInput
    ) -> MergedWeights[CheckpointSpace]:
        from evomerge.connectors.local.base_model import load_base
        from evomerge.connectors.local.merged_weights import MergedWeights
        from evomerge.merging.checkpoint.space import CheckpointSpace

        check_unchanged(inputs, seed)
        start = read_checkpoint(seed.path, seed.forest)
        elms = [
            read_checkpoint(folder, expert.name)
            for folder, expert in zip(inputs.folders, inputs.experts, strict=True)
        ]
        base = load_base(
            seed.path,
            name=seed.forest,
            device=self._settings.device,
            dtype=self._settings.dtype,
            threads=self._settings.threads,
        )
        return MergedWeights(base, CheckpointSpace(start, elms, spec.layer_groups))


def check_unchanged(inputs: JobInputs, seed: SeedInput) -> None:
    """Read every byte of the seed and the ELMs.

    Raises:
        InputChangedError: one is gone, or is not what the job was created with.
    """
    known = [(f"the seed of forest {seed.forest!r}", seed.path, seed.content_hash)]
    known += [
        (f"ELM {expert.name!r}", folder, expert.content_hash)
        for folder, expert in zip(inputs.folders, inputs.experts, strict=True)
    ]
    for what, folder, expected in known:
        try:
            found = content_hash(folder)
        except (CheckpointError, OSError) as error:
            raise InputChangedError(what, "has gone") from error
        if found != expected:
            raise InputChangedError(what, "has changed")
