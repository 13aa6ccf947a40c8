"""What a merge job found, with its proof: the `result` of a job, and most of its manifest."""

from __future__ import annotations

from pydantic import Field

from evomerge.app.schemas.base import Resource
from evomerge.app.schemas.spec import Metric


class ResultInterval(Resource):
    """A confidence interval of a mean."""

    low: float
    high: float
    level: float


class ContenderResult(Resource):
    """One model on the held-out examples. Losses: lower is better."""

    name: str = Field(
        description="winner, base, best_expert or uniform. Over a forest base is its seed, and "
        "there are more: argmax, the ELM that the posterior finds likeliest; posterior, the "
        "average of all by the posterior (in the output space, their mixture with these fixed "
        "weights); btm_ensemble, what they say together, mixed token by "
        "token (for cross_entropy and choice_accuracy). The posterior is estimated on the "
        "search's rows alone."
    )
    expert: str | None = Field(None, description="Which expert best_expert is.")
    loss: float | None = Field(description="Mean loss; null where the model broke.")
    score: float | None = Field(
        description="1 - loss, for metrics that are scores; null for cross_entropy."
    )
    interval: ResultInterval | None = Field(description="Of the loss, by bootstrap.")
    dataset_losses: dict[str, float | None] = Field(description="By name of the dataset.")
    difference: float | None = Field(
        None, description="Loss less the winner's: positive where the winner is better."
    )
    difference_interval: ResultInterval | None = None
    p_value: float | None = Field(None, description="Of the paired test of the difference.")


class MetricResult(Resource):
    """All contenders under one metric."""

    metric: Metric
    examples: int
    contenders: list[ContenderResult]


class WinnerResult(Resource):
    """The winning candidate. alpha and beta have one number for each layer group."""

    stage: str
    generation: int
    index: int
    search_loss: float
    alpha: dict[str, list[float]] = Field(description="Fraction kept, by name of the expert.")
    beta: dict[str, list[float]] = Field(description="Signed weight, by name of the expert.")


class GenerationResult(Resource):
    """The search losses of one generation."""

    stage: str
    generation: int
    evaluations: int
    best: float | None
    mean: float | None


class UsageResult(Resource):
    """What scoring cost."""

    evaluations: int
    tokens: int
    seconds: float


class CallsResult(Resource):
    """What was spent on calls to one model's API, over all attempts."""

    requests: int
    input_tokens: int
    output_tokens: int
    usd: float


class ArtifactResult(Resource):
    """One file, by its path within the job's artifacts."""

    name: str
    bytes: int
    sha256: str


class JobResult(Resource):
    """The outcome of a merge job."""

    winner: WinnerResult
    held_out: list[MetricResult] = Field(description="The proof; the search's metric first.")
    unproven: str | None = Field(None, description="Why there is no proof, where there is none.")
    generations: list[GenerationResult]
    search_examples: int
    held_out_examples: int
    ended_by: str | None = Field(
        description="The budget that ended the search, or left out examples or experts that could "
        "not be asked any more; null when it ran its course."
    )
    left_out: dict[str, str] = Field(
        default_factory=dict,
        description="Experts that have no part in the merge since a budget ended before they were "
        "asked, by name, and how far they were.",
    )
    usage: dict[str, UsageResult] = Field(
        description="Of the search and of the proof; and, where candidates are mixtures of a "
        "forest's ELMs, `reading`: what the last attempt let the models read before its search."
    )
    calls: dict[str, CallsResult] = Field(
        default_factory=dict,
        description="Spent on calls to APIs, by base URL and model. What was known already cost "
        "nothing.",
    )
    seconds: float = Field(description="Running time of the job, over all attempts.")
    seed: int
    versions: dict[str, str]
    hashes: dict[str, str | dict[str, str]] = Field(
        description="Content hashes of base, experts and datasets."
    )
    artifacts: list[ArtifactResult]
