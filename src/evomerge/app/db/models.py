"""Tables. Times are UTC seconds since the epoch, by the database's clock for leases."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = JSON().with_variant(JSONB(), "postgresql")
# SQLite counts only an INTEGER primary key up by itself.
BigId = BigInteger().with_variant(Integer(), "sqlite")


class Table(DeclarativeBase):
    """Root of the tables."""

    # Names for every constraint, so that a later migration can point at them.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Expert(Table):
    """One member of a pool: an adapter in a folder, or a model known by its API.

    `base` and `path` are those of a folder's adapter; `definition` is how an API is called.
    """

    __tablename__ = "experts"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    kind: Mapped[str] = mapped_column(String(16))  # lora | api | remote
    base: Mapped[str | None] = mapped_column(String(255))  # name of the base model in settings
    path: Mapped[str | None] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(String(64), index=True)
    info: Mapped[dict[str, Any]] = mapped_column(Json)  # rank, modules; what a probe found
    definition: Mapped[dict[str, Any] | None] = mapped_column(Json)  # endpoint, prompts, price
    meta: Mapped[dict[str, str]] = mapped_column("metadata", Json)
    created_at: Mapped[float] = mapped_column(Float)


class Pool(Table):
    """A named list of experts of one kind, over one base where they have one."""

    __tablename__ = "pools"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    base: Mapped[str | None] = mapped_column(String(255))
    meta: Mapped[dict[str, str]] = mapped_column("metadata", Json)
    created_at: Mapped[float] = mapped_column(Float)


class PoolMember(Table):
    """Expert number `position` of a pool."""

    __tablename__ = "pool_members"

    pool_id: Mapped[str] = mapped_column(
        ForeignKey("pools.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    expert_id: Mapped[str] = mapped_column(ForeignKey("experts.id"), index=True)


class Forest(Table):
    """A named set of ELMs that come from one seed: full checkpoints of one architecture.

    `ensemble` is how they speak together: the fields of `app.ensembles.Ensemble`.
    """

    __tablename__ = "forests"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)  # nor has a pool this name
    seed_path: Mapped[str] = mapped_column(Text)
    seed_hash: Mapped[str] = mapped_column(String(64), index=True)
    seed_lineage: Mapped[dict[str, Any]] = mapped_column(Json)  # as in elm.json
    vocabulary_hash: Mapped[str] = mapped_column(String(64))  # of what makes tokens of text
    architecture: Mapped[dict[str, Any]] = mapped_column(Json)  # what people ask of it
    ensemble: Mapped[dict[str, Any]] = mapped_column(Json)
    meta: Mapped[dict[str, str]] = mapped_column("metadata", Json)
    created_at: Mapped[float] = mapped_column(Float)


class ForestElm(Table):
    """One expert language model of a forest; those of higher `position` came later."""

    __tablename__ = "forest_elms"
    __table_args__ = (UniqueConstraint("forest_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    forest_id: Mapped[str] = mapped_column(ForeignKey("forests.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)  # grows; what was removed leaves a gap
    name: Mapped[str] = mapped_column(String(128))
    domain: Mapped[str] = mapped_column(String(128))
    path: Mapped[str] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(String(64), index=True)
    lineage: Mapped[dict[str, Any]] = mapped_column(Json)  # as in elm.json
    tokens: Mapped[int] = mapped_column(BigInteger)  # seen since random init, the seed's too
    own_tokens: Mapped[int] = mapped_column(BigInteger)  # of its own training alone
    job_id: Mapped[str | None] = mapped_column(String(40))  # the job that trained it
    created_at: Mapped[float] = mapped_column(Float)


class Dataset(Table):
    """Rows in their normal form, in a file named by their hash."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    kind: Mapped[str] = mapped_column(String(16))  # completion | choice | text
    content_hash: Mapped[str] = mapped_column(String(64), index=True)
    rows: Mapped[int] = mapped_column(Integer)
    path: Mapped[str] = mapped_column(Text)
    info: Mapped[dict[str, Any]] = mapped_column(Json)  # bytes, prompts, format
    meta: Mapped[dict[str, str]] = mapped_column("metadata", Json)
    created_at: Mapped[float] = mapped_column(Float)


class Job(Table):
    """One job, its lease and its outcome.

    kind: merge | train_seed | branch_train | cluster | average | evaluate.
    status: queued | running | pausing | paused | cancelling | succeeded | failed | cancelled.
    `lease_token` grows at every claim; each write of a worker checks it in the same transaction.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_queue", "status", "created_at"),
        Index("ix_jobs_created", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(
        String(16)
    )  # merge | train_seed | branch_train | cluster | average | evaluate
    name: Mapped[str | None] = mapped_column(String(128), index=True)
    status: Mapped[str] = mapped_column(String(16))
    spec: Mapped[dict[str, Any]] = mapped_column(Json)  # resolved: every default written out
    inputs: Mapped[dict[str, Any]] = mapped_column(Json)  # ids, hashes and paths at creation
    meta: Mapped[dict[str, str]] = mapped_column("metadata", Json)
    stop_request: Mapped[str | None] = mapped_column(String(16))  # pause | cancel
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_token: Mapped[int] = mapped_column(Integer, default=0)
    lease_until: Mapped[float | None] = mapped_column(Float)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    seconds_used: Mapped[float] = mapped_column(Float, default=0.0)  # over all attempts
    progress: Mapped[dict[str, Any]] = mapped_column(Json)
    # Which examples the search has answers for, once it has begun; null where it needs none.
    gathered: Mapped[dict[str, Any] | None] = mapped_column(Json)
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    error: Mapped[dict[str, Any] | None] = mapped_column(Json)
    created_at: Mapped[float] = mapped_column(Float)
    started_at: Mapped[float | None] = mapped_column(Float)
    finished_at: Mapped[float | None] = mapped_column(Float)


class Evaluation(Table):
    """One scored candidate. This log is the search's checkpoint."""

    __tablename__ = "evaluations"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    # Order of the stage in the search, so that the key sorts as the search ran.
    stage_number: Mapped[int] = mapped_column(Integer, primary_key=True)
    stage: Mapped[str] = mapped_column(String(32))
    generation: Mapped[int] = mapped_column(Integer, primary_key=True)
    index: Mapped[int] = mapped_column(Integer, primary_key=True)
    groups: Mapped[int] = mapped_column(Integer)
    alpha: Mapped[bytes] = mapped_column(LargeBinary)  # float64, little-endian, C order
    beta: Mapped[bytes] = mapped_column(LargeBinary)
    loss: Mapped[float | None] = mapped_column(Float)  # unpenalised mean; null for NaN
    losses: Mapped[bytes] = mapped_column(LargeBinary)  # float64, one an example
    # What each example counts in the mean; kept on held-out rows, whose intervals need it.
    weights: Mapped[bytes | None] = mapped_column(LargeBinary)
    tokens: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float] = mapped_column(Float)
    created_at: Mapped[float] = mapped_column(Float)


class StoredAnswer(Table):
    """What a model answered to one question, by the question's content.

    While `answer` and `failure` are null it is being asked by `owner`, who has until
    `lease_until`; whoever finds it lapsed may ask again.
    """

    __tablename__ = "answers"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(Text)  # base URL and model, for people
    answer: Mapped[dict[str, Any] | None] = mapped_column(Json)
    failure: Mapped[dict[str, Any] | None] = mapped_column(Json)  # a refusal of this question
    owner: Mapped[str | None] = mapped_column(String(128))
    lease_until: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[float] = mapped_column(Float)


class Call(Table):
    """What a job has reserved for one question, or spent on it.

    Reserved before it is sent, at the most that it can cost; settled at what it did cost. What a
    crash leaves unsettled counts as spent, for the provider may have charged it.
    """

    __tablename__ = "calls"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    key: Mapped[str] = mapped_column(String(64))  # of the question
    requests: Mapped[int] = mapped_column(Integer)
    input_tokens: Mapped[int] = mapped_column(BigInteger)
    output_tokens: Mapped[int] = mapped_column(BigInteger)
    usd: Mapped[float] = mapped_column(Float)
    settled: Mapped[bool] = mapped_column(Boolean)
    created_at: Mapped[float] = mapped_column(Float)


class MergedModel(Table):
    """The name under which a job's result is called; the last job to succeed has it."""

    __tablename__ = "models"

    name: Mapped[str] = mapped_column(String(128), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[float] = mapped_column(Float)


class Event(Table):
    """One line of a job's history."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[float] = mapped_column(Float)
    level: Mapped[str] = mapped_column(String(8))  # info | warn | error
    type: Mapped[str] = mapped_column(String(16))  # message | metrics
    message: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]] = mapped_column(Json)


class IdempotencyKey(Table):
    """The answer already given to a POST, kept so that a repeated one gets it again."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("key", "route"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    key: Mapped[str] = mapped_column(String(255))
    route: Mapped[str] = mapped_column(String(255))
    body_hash: Mapped[str] = mapped_column(String(64))
    resource_id: Mapped[str] = mapped_column(String(40))
    status: Mapped[int] = mapped_column(Integer)
    response: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[float] = mapped_column(Float)


class SharedSession(Table):
    """A session of the BMM protocol: a preset as it was when the session began.

    `spec` and `inputs` are those of a merge job over the preset's pool and datasets; `caller` is
    the only one who may use the session.
    """

    __tablename__ = "sessions"
    __table_args__ = (Index("ix_sessions_caller", "caller", "created_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    caller: Mapped[str] = mapped_column(String(64))
    preset: Mapped[str] = mapped_column(String(128))
    query: Mapped[dict[str, Any]] = mapped_column(Json)  # query_plus, as it was asked
    spec: Mapped[dict[str, Any]] = mapped_column(Json)
    inputs: Mapped[dict[str, Any]] = mapped_column(Json)
    created_at: Mapped[float] = mapped_column(Float)


class Quota(Table):
    """How many candidates a caller has had scored, over all its sessions."""

    __tablename__ = "quotas"

    caller: Mapped[str] = mapped_column(String(64), primary_key=True)
    evaluations: Mapped[int] = mapped_column(BigInteger)
