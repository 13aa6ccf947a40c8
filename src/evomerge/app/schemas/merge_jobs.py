"""Merge jobs as clients see them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from evomerge.app.schemas import examples
from evomerge.app.schemas.base import Page, Resource
from evomerge.app.schemas.jobs import AnyJob, AnyJobEvent, example, page_example
from evomerge.app.schemas.result import ArtifactResult, JobResult
from evomerge.app.schemas.spec import MergeJobSpec

_JOB_EXAMPLE = examples.merge_job(
    MergeJobSpec.model_validate(examples.MERGE_JOB_SPECS[0]).model_dump(mode="json")
)


class ResolvedExpert(Resource):
    """An expert as it was when the job was created."""

    id: str
    name: str
    content_hash: str


class ResolvedDataset(Resource):
    """A dataset as it was when the job was created."""

    id: str
    name: str
    content_hash: str
    rows: int
    weight: float


class ResolvedSeed(Resource):
    """What a forest's ELMs come from, as it was when the job was created."""

    forest: str = Field(description="Name of the forest.")
    content_hash: str


class ResolvedInputs(Resource):
    """What the job is made of. What is renamed or deleted later changes no job."""

    base: str | None
    base_hash: str | None = Field(
        None, description="Of its files; null for jobs of versions that did not fix it."
    )
    seed: ResolvedSeed | None = Field(None, description="Of a forest; null for other pools.")
    pool_id: str | None = Field(None, description="Of the pool or the forest.")
    experts: list[ResolvedExpert]
    datasets: list[ResolvedDataset]


class MergeJob(AnyJob):
    """One search."""

    model_config = example(_JOB_EXAMPLE)

    object: Literal["merge_job"] = "merge_job"
    spec: MergeJobSpec = Field(description="With every default written out.")
    inputs: ResolvedInputs
    progress: dict[str, Any] = Field(
        description="stage, generation, evaluations, planned_evaluations, best_loss, tokens, "
        "tokens_per_second and eta_seconds; empty before the job has begun."
    )


class MergeJobPage(Page[MergeJob]):
    """Some jobs, newest first."""

    model_config = page_example(_JOB_EXAMPLE)


class MergeJobResult(JobResult):
    """What a job found, with its proof."""

    model_config = example(examples.RESULT)

    object: Literal["merge_job.result"] = "merge_job.result"
    merge_job_id: str


class MergeJobEvent(AnyJobEvent):
    """One line of a job's history."""

    model_config = example(examples.EVENT)

    object: Literal["merge_job.event"] = "merge_job.event"


class MergeJobEventPage(Page[MergeJobEvent]):
    """Some events, oldest first."""

    model_config = page_example(examples.EVENT)


class MergeJobEvaluation(Resource):
    """One scored candidate."""

    model_config = example(examples.EVALUATION)

    id: str
    object: Literal["merge_job.evaluation"] = "merge_job.evaluation"
    stage: str
    generation: int
    index: int
    loss: float | None = Field(description="Unpenalised mean; null where the candidate broke.")
    alpha: list[list[float]] = Field(description="By layer group and expert: fraction kept.")
    beta: list[list[float]] = Field(description="By layer group and expert: signed weight.")
    tokens: int
    seconds: float
    created_at: float


class MergeJobEvaluationPage(Page[MergeJobEvaluation]):
    """Some evaluations, in the order of the search."""

    model_config = page_example(examples.EVALUATION)


class Artifact(ArtifactResult):
    """One file that a job made."""

    model_config = example(examples.ARTIFACT)

    object: Literal["merge_job.artifact"] = "merge_job.artifact"


class ArtifactPage(Page[Artifact]):
    """Every file that a job made."""

    model_config = page_example(examples.ARTIFACT)


class Estimate(Resource):
    """What a job would cost at most. Nothing is created."""

    model_config = example(examples.ESTIMATE)

    object: Literal["merge_job.estimate"] = "merge_job.estimate"
    experts: int
    evaluations: int = Field(description="Candidates scored by the search at most.")
    search_examples: int = Field(description="Examples that each candidate is scored on.")
    held_out_examples: int = Field(description="Examples of the proof.")
    tokens: int = Field(description="Tokens run through local models by search and proof.")
    tokens_by: Literal["tokenizer", "bytes"] = Field(
        description="Whether tokens were counted, or guessed at four bytes each."
    )
    answers: int = Field(description="Answers of experts' APIs that the job needs.")
    answers_known: int = Field(description="Of them, those that an earlier job has paid for.")
    requests: int = Field(description="HTTP requests for the others, when none is repeated.")
    input_tokens: int = Field(description="Tokens that the APIs would read.")
    output_tokens: int = Field(description="Tokens that they are expected to write.")
    usd: float = Field(description="Money, by the experts' prices; models that run here cost none.")
    seconds: float | None = Field(description="Null where nothing like it has run here yet.")
    seconds_reason: str | None = Field(None, description="Why there are no seconds.")
