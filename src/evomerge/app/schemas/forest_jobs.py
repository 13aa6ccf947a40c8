"""Jobs over forests as clients see them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from evomerge.app.schemas import forest_examples as examples
from evomerge.app.schemas.base import Page, Resource
from evomerge.app.schemas.forest_elms import Lineage
from evomerge.app.schemas.forest_specs import ForestJobSpec
from evomerge.app.schemas.jobs import AnyJob, AnyJobEvent, example, page_example
from evomerge.app.schemas.result import ArtifactResult, ResultInterval

JobType = Literal["train_seed", "branch_train", "cluster", "average", "evaluate"]

_JOB_EXAMPLE = examples.forest_job(
    ForestJobSpec.model_validate(examples.BRANCH_TRAIN_SPEC).model_dump(mode="json")
)


class ResolvedElm(Resource):
    """An ELM as it was when the job was created."""

    name: str
    domain: str
    content_hash: str


class ResolvedCorpus(Resource):
    """Documents as they were when the job was created."""

    domain: str
    content_hash: str = Field(description="SHA-256 over the digests of its documents, in order.")
    bytes: int


class ResolvedForest(Resource):
    """What the job is made of. What comes, goes or is renamed later changes no job."""

    forest_id: str | None
    forest: str | None = Field(description="Its name.")
    seed_hash: str | None
    elms: list[ResolvedElm]
    corpora: list[ResolvedCorpus]


class ForestJob(AnyJob):
    """One job over a forest."""

    model_config = example(_JOB_EXAMPLE)

    object: Literal["forest_job"] = "forest_job"
    type: JobType
    spec: ForestJobSpec = Field(description="With every default written out.")
    inputs: ResolvedForest
    progress: dict[str, Any] = Field(
        description="stage; of training step, planned_steps, tokens, planned_tokens, loss, "
        "learning_rate, tokens_per_second and eta_seconds; of reading tokens, domains and "
        "planned_domains; empty before the job has begun."
    )


class ForestJobPage(Page[ForestJob]):
    """Some jobs, newest first."""

    model_config = page_example(_JOB_EXAMPLE)


class ForestJobEvent(AnyJobEvent):
    """One line of a job's history."""

    model_config = example(examples.FOREST_EVENT)

    object: Literal["forest_job.event"] = "forest_job.event"


class ForestJobEventPage(Page[ForestJobEvent]):
    """Some events, oldest first."""

    model_config = page_example(examples.FOREST_EVENT)


class ForestJobArtifact(ArtifactResult):
    """One file that a job made."""

    model_config = example(examples.FOREST_ARTIFACT)

    object: Literal["forest_job.artifact"] = "forest_job.artifact"


class ForestJobArtifactPage(Page[ForestJobArtifact]):
    """Every file that a job made."""

    model_config = page_example(examples.FOREST_ARTIFACT)


class CheckpointResult(Resource):
    """The checkpoint that a job made."""

    content_hash: str = Field(description="SHA-256 of its config, tokenizer and weights.")
    lineage: Lineage


class TrainingResult(Resource):
    """How the training of an ELM went. Losses are in nats a token."""

    steps: int
    planned_steps: int
    processes: int = Field(1, description="That shared each batch.")
    tokens: int = Field(description="Seen since the random start, the seed's included.")
    own_tokens: int = Field(description="Of this job.")
    domain_tokens: dict[str, int]
    train_loss: float = Field(description="Mean of the last steps.")
    dev_losses: dict[str, float] = Field(description="On each domain's development documents.")
    perplexity: float | None = Field(description="exp of the mean development loss.")
    parents: dict[str, float] = Field(description="What the ELM began as, by name.")
    posterior: dict[str, float] | None = Field(
        description="Of the forest's ELMs on the new domain; null where nothing was measured."
    )
    start_losses: dict[str, float] | None = Field(
        description="Of the starts that were compared, before any training."
    )


class AverageResult(Resource):
    """What an average is made of."""

    weights: dict[str, float] = Field(description="By name of ELM; sum one.")
    dev_documents: int = Field(description="That the weights were estimated on.")


class ClusterResult(Resource):
    """One cluster of documents; its file is clusters/<cluster>.jsonl among the artifacts."""

    cluster: int
    documents: int
    train_documents: int
    dev_documents: int
    test_documents: int
    bytes: int = Field(description="Of their texts.")
    content_hash: str = Field(description="Of the corpus that branch jobs train on.")


class ClusteringResult(Resource):
    """How documents fell into clusters, and what the router is made of."""

    clusters: list[ClusterResult]
    duplicates: int = Field(description="Documents left out because they were there already.")
    words: int
    dimensions: int
    router_hash: str = Field(description="SHA-256 of the stored router.")


class DomainPerplexity(Resource):
    """One model on the test documents of one domain."""

    perplexity: float | None
    interval: ResultInterval | None = Field(
        description="By bootstrap over documents; null for a single one."
    )


class GroupPerplexity(Resource):
    """One model over several domains, each counted alike: exp of the mean of their losses."""

    perplexity: float | None
    interval: ResultInterval | None
    domains: int


class ModelPerplexity(Resource):
    """One line of the table."""

    model: str = Field(
        description="seed; elm:<name>; ensemble:top-<k> or ensemble:all, by the posterior; "
        "router:top-<k> or router:all; average:<weights>."
    )
    domains: dict[str, DomainPerplexity]
    trained: GroupPerplexity
    unseen: GroupPerplexity
    all: GroupPerplexity


class EvaluatedDomain(Resource):
    """What was read of a domain."""

    domain: str
    trained: bool = Field(description="Whether an ELM of the forest was trained on it.")
    dev_documents: int
    test_documents: int
    test_tokens: int
    prior: dict[str, float] = Field(description="Of the ELMs, from development documents.")


class EvaluationResult(Resource):
    """The perplexity table of a forest."""

    domains: list[EvaluatedDomain]
    models: list[ModelPerplexity]
    tokens: int = Field(description="Read by models.")
    seed_share: float | None = Field(
        description="Share of the forest's training tokens that are the seed's; null: unknown."
    )


class ForestJobResult(Resource):
    """What a job over a forest made or found."""

    model_config = example(examples.FOREST_RESULT)

    object: Literal["forest_job.result"] = "forest_job.result"
    forest_job_id: str
    type: JobType
    ended_by: str | None = Field(
        description="The budget that ended the job before its time: an ELM was trained less than "
        "its recipe says, or domains were not evaluated. Null when it ran its course."
    )
    checkpoint: CheckpointResult | None = None
    training: TrainingResult | None = None
    average: AverageResult | None = None
    clustering: ClusteringResult | None = None
    evaluation: EvaluationResult | None = None
    forest_id: str | None = Field(None, description="The forest that was made or added to.")
    elm_id: str | None = Field(None, description="The ELM that joined the forest.")
    seconds: float = Field(description="Running time of the job, over all attempts.")
    versions: dict[str, str]
    artifacts: list[ArtifactResult]


class ForestJobEstimate(Resource):
    """What a job would take at most. Nothing is created."""

    model_config = example(examples.FOREST_ESTIMATE)

    object: Literal["forest_job.estimate"] = "forest_job.estimate"
    type: JobType
    parameters: int = Field(description="Of one model.")
    steps: int = Field(description="Training steps; 0 for jobs that do not train.")
    tokens: int = Field(description="Trained on, or read by models.")
    tokens_by: Literal["recipe", "bytes"] = Field(
        description="Whether the recipe says so, or they are guessed at four bytes each."
    )
    disk_bytes: int = Field(description="Of what the job leaves.")
    scratch_bytes: int = Field(description="Of what it needs beside that while it runs.")
    seconds: float | None = Field(description="Null where nothing like it has run here yet.")
    seconds_reason: str | None = Field(None, description="Why there are no seconds.")
