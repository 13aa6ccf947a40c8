"""The specs of jobs over forests: one model for HTTP bodies, YAML files and the docs."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, RootModel, model_validator

from evomerge.app.ensembles import Weighting
from evomerge.app.schemas.base import Body, Metadata, Name, Reference, Text
from evomerge.app.schemas.forest_examples import (
    AVERAGE_SPEC,
    BRANCH_TRAIN_SPEC,
    CLUSTER_SPEC,
    EVALUATE_SPEC,
    TRAIN_SEED_SPEC,
)
from evomerge.app.schemas.forests import TOP_K_MOST, Weight

AverageName = Literal["uniform", "argmax", "posterior"]
History = Literal["full", "previous"]


class CorpusSource(Body):
    """Documents of one domain, or of one cluster."""

    domain: Text = Field(
        "",
        max_length=128,
        description="What they are of; a document's provenance. That of a cluster is by default "
        "cluster-<number>.",
    )
    path: Text | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="A text file, a JSONL file with a field `text`, or a folder of both, below "
        "one of the service's roots.",
    )
    cluster: int | None = Field(
        None, ge=0, description="Instead of a path: the number of a cluster of the forest's router."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.cluster is None):
            raise ValueError("give either path or cluster")
        if not self.domain:
            if self.cluster is None:
                raise ValueError("domain: must be given, and not be empty")
            self.domain = f"cluster-{self.cluster}"
        return self


class Shares(Body):
    """Which documents are kept from training: decided by each document's content alone."""

    dev_share: float = Field(
        0.05, ge=0, lt=1, description="Share of the documents that choose: start, prior."
    )
    test_share: float = Field(
        0.05, ge=0, lt=1, description="Share of the documents that only `evaluate` ever reads."
    )


class Recipe(Shares):
    """How an ELM is trained."""

    tokens: int = Field(ge=1, description="Tokens to train on; whole batches are taken.")
    block_tokens: int = Field(256, ge=1, description="Tokens that a row predicts.")
    batch_blocks: int = Field(16, ge=1, description="Rows of one step.")
    micro_blocks: int | None = Field(
        None, ge=1, description="Rows of one forward, where a batch does not fit into memory."
    )
    learning_rate: float = Field(1e-3, gt=0, description="The highest one.")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="Share of steps that rise to it.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How it falls: to a tenth, or not at all."
    )
    schedule_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens that the schedule spans, ancestors' and descendants' included, where "
        "an optimizer is continued. By default it ends with the job.",
    )
    weight_decay: float = Field(0.1, ge=0, description="AdamW's, on matrices.")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto is float32 on a CPU and bfloat16 on CUDA."
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of first weights and order of blocks.")
    checkpoint_steps: int = Field(
        200, ge=1, description="A job that was killed goes on from the last of these."
    )
    keep_optimizer: bool = Field(
        False, description="Store the optimizer's state, for a branch that continues it."
    )


class Architecture(Body):
    """A Llama with tied embeddings, and where its tokenizer comes from."""

    vocabulary: int = Field(
        4096, ge=257, description="Tokens of a byte-level BPE that is trained on the corpora."
    )
    hidden: int = Field(256, ge=1, description="Width.")
    layers: int = Field(6, ge=1, description="Depth.")
    heads: int = Field(4, ge=1, description="Attention heads.")
    kv_heads: int = Field(4, ge=1, description="Heads of keys and values; they divide the heads.")
    intermediate: int = Field(688, ge=1, description="Width of the MLP.")
    context: int = Field(1024, ge=1, description="Tokens that a row may have.")
    tokenizer: Text | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Folder with a tokenizer to take, below one of the service's roots.",
    )
    tokenizer_bytes: int = Field(
        32 * 2**20, ge=1, description="Bytes of training documents that a tokenizer is trained on."
    )

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden={self.hidden} must be an even multiple of heads={self.heads}")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads={self.kv_heads} must divide heads={self.heads}")
        return self


Processes = Annotated[
    int | None,
    Field(
        ge=1,
        le=64,
        description="Processes that share each batch, a CUDA device of the worker each; on a CPU "
        "they share its cores. By default one for each CUDA device, and one on a CPU.",
    ),
]


class TrainingBudget(Body):
    """Hard limits; reaching one ends the job with the ELM as it was trained so far."""

    tokens: int | None = Field(None, ge=1, description="Tokens trained on.")
    steps: int | None = Field(None, ge=1, description="Steps.")
    seconds: float | None = Field(None, gt=0, description="Running time, over all attempts.")


class ReadingBudget(Body):
    """Hard limits; reaching one ends the job with what it has."""

    tokens: int | None = Field(None, ge=1, description="Tokens read by models.")
    seconds: float | None = Field(None, gt=0, description="Running time, over all attempts.")


class PriorEstimate(Body):
    """How a domain's prior over the ELMs is estimated: on its development documents alone."""

    weight: float = Field(
        0.3, gt=0, le=1, description="Of each new posterior in the moving average."
    )
    documents: int = Field(
        100, ge=1, le=100_000, description="Development documents that are read at most."
    )


class _ForestJob(Body):
    name: Name | None = None
    metadata: Metadata = Field(default_factory=dict)


class TrainSeedSpec(_ForestJob):
    """Train a seed from random weights, on equal tokens of each domain."""

    type: Literal["train_seed"]
    corpora: list[CorpusSource] = Field(min_length=1, max_length=4096)
    architecture: Architecture = Field(default_factory=Architecture)
    recipe: Recipe
    processes: Processes = None
    budget: TrainingBudget = Field(default_factory=TrainingBudget)
    forest: Name | None = Field(
        None, description="Make a forest of this name over the seed, once it is trained."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _distinct(self.corpora)
        if self.recipe.block_tokens > self.architecture.context:
            raise ValueError(
                f"recipe.block_tokens={self.recipe.block_tokens} is more than "
                f"architecture.context={self.architecture.context}"
            )
        return self


class BranchTrainSpec(_ForestJob):
    """Train a new ELM on one domain, from those of a forest; it joins the forest at the end."""

    type: Literal["branch_train"]
    forest: Reference = Field(description="Id or name of a forest.")
    corpus: CorpusSource
    elm: Name | None = Field(None, description="Name of the new ELM; by default its domain.")
    start: Reference = Field(
        "auto",
        description="nearest: a copy of the ELM of largest posterior on development documents; "
        "average: of all, weighted by it; auto: what is better there; seed; or an ELM's name.",
    )
    optimizer: Literal["auto", "continue", "reset"] = Field(
        "auto",
        description="Go on with the optimizer of the ELM that is copied, or begin anew; auto "
        "goes on where that is possible. An average always begins anew.",
    )
    recipe: Recipe
    processes: Processes = None
    budget: TrainingBudget = Field(default_factory=TrainingBudget)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.start == "average" and self.optimizer == "continue":
            raise ValueError("optimizer='continue': an average has no optimizer to go on with")
        return self


class ClusterSpec(_ForestJob):
    """Find domains in documents that name none, and fit the router of a forest (c-BTM)."""

    type: Literal["cluster"]
    forest: Reference = Field(description="Id or name of the forest that gets the router.")
    corpora: list[Annotated[Text, Field(min_length=1, max_length=4096)]] = Field(
        min_length=1,
        max_length=4096,
        description="Text files, JSONL files with a field `text`, or folders of both, below the "
        "service's roots. Equal documents count once.",
    )
    clusters: int = Field(ge=1, le=TOP_K_MOST, description="How many.")
    balance: bool = Field(
        True, description="Whether clusters are of equal size, within one training document."
    )
    words: int = Field(50_000, ge=1, le=1_000_000, description="Of tf-idf, at most.")
    dimensions: int = Field(100, ge=1, le=4096, description="Of the SVD, at most.")
    temperature: float = Field(
        0.1, gt=0, allow_inf_nan=False, description="T of the router's softmax(-d^2 / T)."
    )
    shares: Shares = Field(default_factory=Shares)
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of the SVD and the first centres.")


class AverageSpec(_ForestJob):
    """Average the weights of a forest's ELMs into one checkpoint."""

    type: Literal["average"]
    forest: Reference = Field(description="Id or name of a forest.")
    weights: AverageName | dict[Name, Weight] = Field(
        "posterior",
        description="uniform; argmax or posterior of the ELMs on the corpus; or what each ELM "
        "weighs by name, with sum one.",
    )
    corpus: CorpusSource | None = Field(
        None,
        description="Whose development documents argmax and posterior are of; by default the "
        "forest's own prior is taken.",
    )
    shares: Shares = Field(default_factory=Shares)
    prior: PriorEstimate = Field(default_factory=PriorEstimate)
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None, description="Of the result; by default that of the first ELM."
    )
    budget: ReadingBudget = Field(default_factory=ReadingBudget)
    serve_as: Name | None = Field(
        None, description="Name under which the average is called; its job's id is always one."
    )

    @model_validator(mode="after")
    def _corpus_is_read(self) -> Self:
        if self.corpus is not None and self.weights not in ("argmax", "posterior"):
            raise ValueError("corpus: only weights argmax and posterior are of one")
        return self


class EvaluateSpec(_ForestJob):
    """Measure the perplexity of a forest, domain by domain, on test documents."""

    type: Literal["evaluate"]
    forest: Reference = Field(description="Id or name of a forest.")
    corpora: list[CorpusSource] = Field(min_length=1, max_length=4096)
    shares: Shares = Field(default_factory=Shares)
    prior: PriorEstimate = Field(default_factory=PriorEstimate)
    history: History = Field("full", description="What the posterior reads of a text.")
    top_k: list[Annotated[int, Field(ge=1, le=TOP_K_MOST)]] = Field(
        default_factory=lambda: [1, 2],
        max_length=16,
        description="Ensembles of so many ELMs at each token, beside that of all. Those of more "
        "than there are, are left out.",
    )
    weightings: list[Weighting] = Field(
        default=["posterior"],
        max_length=2,
        description="What the ensembles weigh ELMs by; the forest's router needs an ELM for each "
        "of its clusters.",
    )
    averages: list[AverageName] = Field(default=["uniform", "argmax", "posterior"], max_length=3)
    test_documents: int | None = Field(
        None, ge=1, description="Test documents of each domain that are read at most."
    )
    seed: int = Field(7, ge=0, le=2**32 - 1, description="Of the intervals' resampling.")
    budget: ReadingBudget = Field(default_factory=ReadingBudget)

    @model_validator(mode="after")
    def _distinct_parts(self) -> Self:
        _distinct(self.corpora)
        for name in ("dev_share", "test_share"):
            if not getattr(self.shares, name):
                raise ValueError(f"shares.{name} must be above 0: there is nothing to read")
        for field in ("top_k", "weightings", "averages"):
            given = getattr(self, field)
            if len(set(given)) != len(given):
                raise ValueError(f"{field}={given!r} names one twice")
        return self


class ForestJobSpec(
    RootModel[
        Annotated[
            TrainSeedSpec | BranchTrainSpec | ClusterSpec | AverageSpec | EvaluateSpec,
            Field(discriminator="type"),
        ]
    ]
):
    """A job over a forest: its `type` says which."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                TRAIN_SEED_SPEC,
                BRANCH_TRAIN_SPEC,
                CLUSTER_SPEC,
                AVERAGE_SPEC,
                EVALUATE_SPEC,
            ]
        }
    )


TrainingSpec = TrainSeedSpec | BranchTrainSpec
AnyForestSpec = TrainingSpec | ClusterSpec | AverageSpec | EvaluateSpec


def _distinct(corpora: list[CorpusSource]) -> None:
    domains = [corpus.domain for corpus in corpora]
    for domain in domains:
        if domains.count(domain) > 1:
            raise ValueError(f"corpora: domain {domain!r} stands more than once")
