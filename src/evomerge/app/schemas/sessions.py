"""The BMM session protocol: searching over a pool by alpha and beta alone."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from evomerge.app.schemas.base import Body, Resource, Text

Finite = Annotated[float, Field(allow_inf_nan=False)]

_QUERY = {"dataset": "film", "max_samples": 200}
_WHOLE_QUERY = {
    "dataset": "film",
    "dataset_dir": None,
    "template": "default",
    "cutoff_len": 2048,
    "max_samples": 200,
    "batch_size": 15,
    "evaluation_batches": 20,
    "temperature": 0.95,
    "top_p": 0.7,
    "top_k": 50,
    "max_new_tokens": 1024,
    "repetition_penalty": 1.0,
}
_SESSION = {
    "session_id": "ses_5f0c2a9d81b34e77a6c0d1e2",
    "preset_id": "film-relatives",
    "workdir": "ses_5f0c2a9d81b34e77a6c0d1e2",
    "model_name_or_path": "smollm2-135m",
    "query_plus": _WHOLE_QUERY,
    "adapter_count": 3,
}
_CANDIDATE = {"alpha": [1.0, 0.7, 1.0], "beta": [0.8, -0.2, 0.1], "tag": "manual"}
_FOLDER = "ses_5f0c2a9d81b34e77a6c0d1e2/9f86d081884c7d65"


def _example(body: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [body]})


class QueryPlus(Body):
    """What is scored. Only dataset and max_samples have an effect here; the rest is the preset's.

    What is left out has the value named here, whatever the session's other queries were.
    """

    model_config = _example(_QUERY)

    dataset: Text | None = Field(
        None, max_length=1024, description="One of the preset's datasets, or several by comma."
    )
    dataset_dir: Text | None = Field(None, max_length=1024, description="Without effect.")
    template: Text = Field("default", max_length=128, description="Without effect.")
    cutoff_len: int = Field(2048, ge=1, le=2**31, description="Without effect.")
    max_samples: int | None = Field(
        None,
        ge=1,
        le=2**31,
        description="Examples of each dataset at most, down to 16: no single one is told apart.",
    )
    batch_size: int = Field(15, ge=1, le=2**31, description="Without effect.")
    evaluation_batches: int = Field(20, ge=1, le=2**31, description="Without effect.")
    temperature: Finite = Field(0.95, ge=0, description="Without effect.")
    top_p: Finite = Field(0.7, ge=0, le=1, description="Without effect.")
    top_k: int = Field(50, ge=0, le=2**31, description="Without effect.")
    max_new_tokens: int = Field(1024, ge=1, le=2**31, description="Without effect.")
    repetition_penalty: Finite = Field(1.0, ge=0, description="Without effect.")


class SessionCreate(Body):
    """Opens a session over a preset."""

    model_config = _example({"preset_id": "film-relatives", "query_plus": _QUERY})

    preset_id: Text = Field(min_length=1, max_length=128, description="Of GET /v1/presets.")
    model_name_or_path: Text | None = Field(
        None, max_length=255, description="The base, which must be the preset's."
    )
    query_plus: QueryPlus | None = None


class PresetItem(Resource):
    """A pool with datasets that may be searched over."""

    preset_id: str
    path: str = Field(description="An opaque name.")
    base_model_name_or_path: str | None = Field(
        description="Its base; null while its pool is not registered."
    )


class PresetList(Resource):
    """Every preset."""

    model_config = _example(
        {
            "items": [
                {
                    "preset_id": "film-relatives",
                    "path": "film-relatives",
                    "base_model_name_or_path": "smollm2-135m",
                }
            ]
        }
    )

    items: list[PresetItem]


class Session(Resource):
    """A session; it outlives a restart of the service."""

    model_config = _example(_SESSION)

    session_id: str
    preset_id: str
    workdir: str = Field(description="An opaque name.")
    model_name_or_path: str
    query_plus: QueryPlus
    adapter_count: int = Field(description="Length of alpha and beta.")


class CandidateBody(Body):
    """What to keep of each adapter, and with what weight."""

    model_config = _example(_CANDIDATE)

    alpha: list[Finite] = Field(max_length=100_000, description="Fractions kept, in [0, 1].")
    beta: list[Finite] = Field(max_length=100_000, description="Signed weights, in [-1.5, 1.5].")
    tag: Text = Field("manual", max_length=128, description="A word of your own.")


class Evaluated(Resource):
    """The loss of a candidate."""

    model_config = _example({"loss": 1.83, "adapter_dir": _FOLDER})

    loss: float | None = Field(description="Lower is better; null where the candidate broke.")
    adapter_dir: str = Field(description="An opaque name.")


class Materialized(Resource):
    """A candidate that was written as an adapter."""

    model_config = _example({"adapter_dir": f"/data/sessions/{_FOLDER}", "session": _SESSION})

    adapter_dir: str = Field(description="The folder on the service's machine.")
    session: Session


class OptimizeBody(Body):
    """A search by the service itself."""

    model_config = _example({"query_plus": _QUERY})

    query_plus: QueryPlus | None = Field(None, description="Instead of the session's own.")


class Optimized(Resource):
    """What the service's own search found."""

    model_config = _example(
        {
            "best_loss": 1.61,
            "best_alpha": [1.0, 0.7, 1.0],
            "best_beta": [0.8, -0.2, 0.1],
            "checkpoint_dir": "mj_5f0c2a9d81b34e77a6c0d1e2",
            "stage1_evaluations": 400,
            "stage2_evaluations": 800,
            "best_adapter_dir": "mj_5f0c2a9d81b34e77a6c0d1e2",
        }
    )

    best_loss: float
    best_alpha: list[float]
    best_beta: list[float]
    checkpoint_dir: str = Field(description="The merge job; its folder for keys that may see it.")
    stage1_evaluations: int
    stage2_evaluations: int
    best_adapter_dir: str = Field(description="As checkpoint_dir.")
