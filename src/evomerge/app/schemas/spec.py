"""The spec of a merge job: one model for HTTP bodies, YAML files and the docs."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from evomerge.app.schemas.base import Body, Metadata, Name, Reference, Text
from evomerge.app.schemas.examples import MERGE_JOB_SPECS, OUTPUT_JOB_SPEC
from evomerge.app.schemas.methods import Baseline, BaseMethod, Bounds, RuleMethod
from evomerge.app.schemas.presets import METHOD_PRESETS, Preset, filled
from evomerge.app.schemas.remote import Remote

Metric = Literal[
    "cross_entropy",
    "exact_match",
    "token_f1",
    "item_precision",
    "item_recall",
    "item_f1",
    "choice_accuracy",
    "rouge_l",
    "chrf",
]
Start = Literal["best_few", "best_expert", "uniform", "zeros"]
Stage = Literal["denoising", "scaling"]
_BOTH_STAGES: tuple[Stage, ...] = ("denoising", "scaling")


class WeightedDataset(Body):
    """One dataset of an objective and how much it counts."""

    dataset: Reference = Field(description="Id or name of a dataset.", examples=["ds_film"])
    weight: float = Field(1.0, gt=0, le=1e6, description="Weight of this dataset's mean loss.")


class Objective(Body):
    """What the search minimises and how its result is proven."""

    datasets: list[WeightedDataset] = Field(
        min_length=1,
        max_length=64,
        description="Several datasets give one merged model for several tasks.",
    )
    metric: Metric = Field(
        "cross_entropy",
        description="What the search minimises (one minus the score for scores).",
    )
    report: list[Metric] = Field(
        default_factory=list,
        max_length=8,
        description="Metrics measured on held-out data beside the search metric.",
    )
    held_out: float = Field(
        0.5, gt=0, lt=1, description="Share of each dataset that the search never sees."
    )
    search_examples: int | None = Field(
        None, ge=1, description="Use at most this many search examples of each dataset."
    )
    held_out_examples: int | None = Field(
        None, ge=1, description="Use at most this many held-out examples of each dataset."
    )
    max_new_tokens: int = Field(64, ge=1, le=1024, description="Limit of greedy generation.")
    context_tokens: int | None = Field(
        None,
        ge=8,
        description="Cut the prompt of longer rows from the left to this many tokens in all; "
        "without it a row longer than the model's context is an error.",
    )
    answer_prefix: Text = Field(
        " ", max_length=64, description="Written between prompt and completion."
    )
    end_of_text: bool = Field(True, description="Whether the answer ends with end-of-text.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [d.dataset for d in self.datasets]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"datasets: {name!r} stands more than once")
        return self


class DenoisingStage(Body):
    """Stage 1: CMA-ES over alpha, what fraction of each expert to keep."""

    evaluations: int = Field(400, ge=1, le=1_000_000)
    sigma: float = Field(0.05, gt=0, le=10)
    bounds: Bounds = Bounds(low=0.0, high=1.0)
    l1: float = Field(0.05, ge=0, le=100, description="Penalty on the mean of |alpha|.")
    start: float = Field(1.0, ge=0, le=1, description="Every alpha at the start.")

    @model_validator(mode="after")
    def _inside(self) -> Self:
        if self.bounds.low < 0 or self.bounds.high > 1:
            raise ValueError(
                f"bounds=[{self.bounds.low}, {self.bounds.high}] must lie within [0, 1]"
            )
        if not self.bounds.low <= self.start <= self.bounds.high:
            raise ValueError(
                f"start={self.start} lies outside bounds=[{self.bounds.low}, {self.bounds.high}]"
            )
        return self


class ScalingStage(Body):
    """Stage 2: CMA-ES over beta, the signed weight of each expert."""

    evaluations: int = Field(800, ge=1, le=1_000_000)
    sigma: float = Field(0.05, gt=0, le=10)
    bounds: Bounds = Bounds(low=-1.5, high=1.5)
    l1: float = Field(0.05, ge=0, le=100, description="Penalty on the mean of |beta|.")
    start: Start = Field(
        "uniform",
        description="Where the search begins. best_few: at the best of the experts alone and of "
        "averages of the best 2, 4, 8 and 16 of them, with weights that sum to 1, 1.5 and 2, which "
        "are scored first.",
    )
    sign: Literal["signed", "nonnegative"] = Field(
        "signed", description="nonnegative forbids negative weights (an ablation)."
    )


class _Population(Body):
    population: int | None = Field(
        None,
        ge=2,
        le=10_000,
        description="Candidates a generation; by default 4 + 3 ln(dimension), the paper has 20.",
    )
    patience: int | None = Field(
        None, ge=1, description="Stop a stage after this many generations without a better best."
    )
    diagonal_above: int = Field(
        200, ge=1, description="Diagonal covariance for more dimensions than this."
    )
    top_k: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="Of a larger pool only so many experts are searched over: those that alone "
        "lose least on search data.",
    )


class EvoMergingMethod(_Population):
    """The paper's two-stage search."""

    name: Literal["evo-merging"] = "evo-merging"
    preset: Preset = Field(
        "default",
        description="Values of every field you do not give. paper: the published recipe exactly.",
    )
    stages: list[Stage] = Field(
        default_factory=lambda: list(_BOTH_STAGES),
        min_length=1,
        max_length=2,
        description="In the order they run; one stage alone is an ablation.",
    )
    probe_competes: bool = Field(
        True,
        description="Whether an expert alone may be the winner. If not, those first evaluations, "
        "one an expert, give the best_expert baseline only, and budget.evaluations does not "
        "count them.",
    )
    denoising: DenoisingStage = Field(default_factory=DenoisingStage)
    scaling: ScalingStage = Field(default_factory=ScalingStage)

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return filled(data, METHOD_PRESETS.get(data.get("preset", "default"), {}))

    @model_validator(mode="after")
    def _distinct_stages(self) -> Self:
        if len(set(self.stages)) != len(self.stages):
            raise ValueError(f"stages={self.stages!r} names a stage twice")
        return self


class CmaMethod(_Population):
    """CMA-ES over beta alone."""

    name: Literal["cma"] = "cma"
    scaling: ScalingStage = Field(default_factory=ScalingStage)


Method = Annotated[EvoMergingMethod | CmaMethod | Baseline, Field(discriminator="name")]


class Budget(Body):
    """Hard limits; reaching one ends the job with its best so far."""

    evaluations: int | None = Field(None, ge=1, description="Candidates scored on search data.")
    seconds: float | None = Field(None, gt=0, description="Running time, over all attempts.")
    tokens: int | None = Field(None, ge=1, description="Tokens scored by local models.")
    requests: int | None = Field(None, ge=1, description="HTTP requests to experts' APIs.")
    input_tokens: int | None = Field(None, ge=1, description="Tokens that those APIs read.")
    output_tokens: int | None = Field(None, ge=1, description="Tokens that those APIs write.")
    usd: float | None = Field(None, gt=0, description="US dollars, by the experts' prices.")


class Output(Body):
    """What is written when the job succeeds."""

    dtype: Literal["bfloat16", "float32"] | None = Field(
        None,
        description="Of the stored weights; by default bfloat16 for an adapter, the seed's for a "
        "merged checkpoint.",
    )
    rank: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="The most that the stored adapter's rank may be: above it, an exact merge is "
        "compressed to it by SVD. By default it is kept exact, with the sum of its experts' ranks.",
    )
    full_checkpoint: bool = Field(False, description="Also merge the adapter into its base.")


class Fusion(Body):
    """How answers are asked for and fused, in the output space."""

    choice_scores: Literal["auto", "prompt_logprobs", "first_token", "samples"] = Field(
        "auto",
        description="Where the probabilities of a choice row's options come from; auto takes the "
        "first of these that every expert can do.",
    )
    samples: int = Field(
        1, ge=1, le=64, description="Answers asked of each expert to each question."
    )
    plausibility: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Negative weights act only on options that an expert with a positive weight "
        "finds at least this share as likely as its best one.",
    )
    price: float = Field(
        0.0,
        ge=0,
        description="Added to the search loss for the share of the pool's cost that a candidate "
        "keeps: makes cheap ensembles win ties.",
    )


class MergeJobSpec(Body):
    """A merge job: pool, dataset, budget in; one merged model, with proof, out."""

    model_config = ConfigDict(json_schema_extra={"examples": [*MERGE_JOB_SPECS, OUTPUT_JOB_SPEC]})

    name: Name | None = None
    pool: Reference | None = Field(
        None, description="Id or name of a pool, or of a forest.", examples=["relatives"]
    )
    experts: list[Reference] | None = Field(
        None, min_length=1, max_length=4096, description="Ids or names of experts, in order."
    )
    space: Literal["lora", "checkpoint", "output", "remote"] = Field(
        "lora",
        description="What a candidate means: weights of adapters, of a forest's ELMs, of answers, "
        "or of adapters that a provider merges.",
    )
    composition: Literal["factor", "exact"] = Field(
        "exact",
        description="Of adapters. factor: the paper's shared beta on both factors, and what "
        "preset paper means; exact: no cross terms.",
    )
    layer_groups: int = Field(
        1, ge=1, le=1024, description="Weights for each of this many groups of layers."
    )
    objective: Objective
    method: Method = Field(default_factory=EvoMergingMethod)
    budget: Budget = Field(default_factory=Budget)
    output: Output = Field(default_factory=Output)
    fusion: Fusion = Field(default_factory=Fusion)
    remote: Remote | None = None
    serve_as: Name | None = Field(
        None,
        description="Name under which the merged model is called; its job's id is always one. The "
        "last job to succeed under a name has it.",
    )
    seed: int = Field(7, ge=0, le=2**32 - 1)
    metadata: Metadata = Field(default_factory=dict)

    @property
    def makes_checkpoint(self) -> bool:
        """Whether a whole checkpoint is stored, not an adapter or an ensemble."""
        ruled = isinstance(self.method, RuleMethod) and self.output.rank is None
        return self.space == "checkpoint" or ruled

    @model_validator(mode="before")
    @classmethod
    def _paper(cls, data: Any) -> Any:
        method = data.get("method") if isinstance(data, dict) else None
        if not isinstance(method, dict):
            return data
        if method.get("preset") == "paper" or method.get("name") == "lorahub":
            return filled(data, {"composition": "factor"})
        return data

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.remote is not None and self.remote.adapters is not None:
            if self.pool is not None or self.experts is not None:
                raise ValueError("remote.adapters: goes with neither pool nor experts")
        elif (self.pool is None) == (self.experts is None):
            raise ValueError("give either pool or experts")
        return self

    @model_validator(mode="after")
    def _fits_its_space(self) -> Self:
        if (self.space == "remote") != (self.remote is not None):
            raise ValueError("remote: goes with space: remote, and that space needs it")
        if self.space not in ("lora", "checkpoint") and self.layer_groups != 1:
            raise ValueError(
                f"layer_groups={self.layer_groups}: only space: lora and space: checkpoint have "
                "layers to group"
            )
        if self.space == "checkpoint":
            self._check_checkpoint()
        if isinstance(self.method, RuleMethod):
            self._check_rule(self.method.name)
        if isinstance(self.method, BaseMethod) and self.space in ("output", "remote"):
            raise ValueError(f"method.name='base': space={self.space!r} merges no base")
        return self

    def _check_rule(self, name: str) -> None:
        if self.space not in ("lora", "checkpoint"):
            raise ValueError(f"method.name={name!r}: merges weights; space={self.space!r} has none")
        if self.composition != "exact":
            raise ValueError(f"composition={self.composition!r}: method {name!r} is one of its own")
        if self.layer_groups != 1:
            raise ValueError(
                f"layer_groups={self.layer_groups}: method {name!r} has one weight for all layers"
            )
        if self.output.full_checkpoint and self.output.rank is None:
            raise ValueError(
                f"output.full_checkpoint: what method {name!r} makes is whole, unless output.rank "
                "makes an adapter of it"
            )

    def _check_checkpoint(self) -> None:
        if self.pool is None:
            raise ValueError("pool: space: checkpoint works over a forest, named there")
        if self.output.rank is not None:
            raise ValueError(f"output.rank={self.output.rank}: goes with adapters")
        if self.output.full_checkpoint:
            raise ValueError("output.full_checkpoint: goes with adapters; a checkpoint is whole")
