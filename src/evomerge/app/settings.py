"""Settings from the environment (`EVOMERGE_*`), read once at the edge and passed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, IPvAnyNetwork, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class CredentialSetting(BaseModel):
    """Where a secret is, and for which hosts: never the secret itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hosts: list[str] = Field(min_length=1, description="Patterns, as in allowed_hosts.")
    env: str | None = Field(None, description="Environment variable that holds the secret.")
    file: Path | None = Field(None, description="File that holds the secret.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("give either env or file")
        return self


class EndpointLimitsSetting(BaseModel):
    """How hard one host may be called by one process."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrency: int = Field(16, ge=1, le=1024, description="Requests under way at once.")
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0)
    attempts: int = Field(5, ge=1, le=20, description="Tries of one request.")
    read_seconds: float = Field(60.0, gt=0, description="Longest silence within an answer.")
    deadline_seconds: float = Field(300.0, gt=0, description="Longest time of one request.")


class KeySetting(BaseModel):
    """An API key with a name, and what it may do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: SecretStr
    scope: Literal["sessions", "all"] = Field(
        "sessions",
        description="sessions: only the session protocol, so that neither weights nor data are "
        "ever seen; all: everything, as api_keys.",
    )
    evaluations: int | None = Field(
        None, ge=0, description="Candidates that sessions score for this key, ever; null: any."
    )
    materialize: bool = Field(
        False, description="Whether it may have merged adapters written, and learn where."
    )


class Settings(BaseSettings):
    """Everything that a deployment decides."""

    model_config = SettingsConfigDict(env_prefix="EVOMERGE_", env_nested_delimiter="__")

    data_dir: Path = Field(Path(".evomerge"), description="Datasets, uploads and artifacts.")
    database_url: str | None = Field(
        None,
        description="sqlite+aiosqlite:///… or postgresql+psycopg://…; a SQLite file in data_dir "
        "by default.",
    )
    roots: list[Path] = Field(
        default_factory=list,
        description="Folders below which experts and datasets may be registered by path.",
    )
    bases: dict[str, Path] = Field(
        default_factory=dict,
        description="Base models by name: folders in the Hugging Face safetensors format.",
    )
    host: str = Field(
        "127.0.0.1", description="Address to bind; beyond loopback only with api_keys."
    )
    port: int = Field(8000, ge=0, le=65535, description="0 picks a free one.")
    api_keys: list[SecretStr] = Field(
        default_factory=list, description="Keys that clients may present; empty asks for none."
    )
    named_keys: dict[str, KeySetting] = Field(
        default_factory=dict, description="Further keys by name, each with its rights."
    )
    shared: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Presets of the session protocol by id: merge jobs over space lora, as in "
        "POST /v1/merge_jobs, whose pool others may search over by alpha and beta alone.",
    )
    shared_waiting: int = Field(
        32, ge=1, description="Candidates that may wait for a session's model; more are refused."
    )
    shared_seconds: float = Field(3600.0, gt=0, description="Longest wait of a session's optimize.")
    adapter_dirs: list[Path] = Field(
        default_factory=list,
        description="Folders below which remote jobs may write candidates for servers to read.",
    )
    allowed_hosts: list[str] = Field(
        default_factory=lambda: ["api.openai.com", "api.anthropic.com", "openrouter.ai"],
        description="Hosts that experts' APIs may be at, such as api.example.com, *.example.com "
        "or 127.0.0.1:8080.",
    )
    allowed_networks: list[IPvAnyNetwork] = Field(
        default_factory=list,
        description="Private networks that those hosts may resolve to, such as 127.0.0.0/8; "
        "without them only public addresses are called.",
    )
    credentials: dict[str, CredentialSetting] = Field(
        default_factory=dict, description="Secrets for those hosts, by name."
    )
    endpoint_limits: dict[str, EndpointLimitsSetting] = Field(
        default_factory=dict,
        description="Limits by host, as in allowed_hosts; * is for every other host.",
    )
    serve_experts: bool = Field(
        False, description="Whether single LoRA experts can be called as models too."
    )
    serve_rows: int = Field(
        16, ge=1, le=1024, description="Answers that one base writes at once at most."
    )
    serve_cache_tokens: int = Field(
        65_536, ge=1, description="Tokens of those answers whose states are kept at most."
    )
    serve_waiting: int = Field(
        256, ge=1, description="Prompts that may wait for a base; more are told to come again."
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, or a device map.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto is float32 on a CPU and bfloat16 on CUDA."
    )
    threads: int | None = Field(None, ge=1, description="CPU threads of a worker's forward.")
    batch_tokens: int = Field(4096, ge=64, description="Tokens of one forward at most.")
    max_upload_bytes: int = Field(512 * 2**20, ge=1, description="Files of one upload.")
    max_body_bytes: int = Field(2 * 2**20, ge=1, description="Any other body.")
    max_pool_experts: int = Field(4096, ge=1, description="Experts of one pool.")
    max_dataset_rows: int = Field(1_000_000, ge=1, description="Rows of one dataset.")
    lease_seconds: float = Field(
        5.0, gt=0, description="How long a job stays with a worker that is not heard of."
    )
    beat_seconds: float = Field(
        1.0, gt=0, description="How often a worker renews its lease; well below the lease."
    )
    poll_seconds: float = Field(0.5, gt=0, description="How often an idle worker looks for a job.")
    heartbeat_seconds: float = Field(
        15.0, gt=0, description="Silence on an event stream after which a comment is sent."
    )
    max_attempts: int = Field(
        5, ge=1, description="Claims of a job before it is failed; a resume counts anew."
    )

    @property
    def url(self) -> str:
        """The database's address."""
        if self.database_url:
            return self.database_url
        return f"sqlite+aiosqlite:///{(self.data_dir / 'evomerge.db').absolute()}"
