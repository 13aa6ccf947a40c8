"""What a provider can merge, checked before a job is queued; and the adapters that it holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

from evomerge.app.errors import InvalidRequestError
from evomerge.app.schemas.inputs import DatasetInput, ExpertInput
from evomerge.app.schemas.methods import Boxed, LorahubMethod
from evomerge.app.schemas.remote import Remote
from evomerge.app.schemas.spec import CmaMethod, EvoMergingMethod, MergeJobSpec
from evomerge.app.settings import Settings

# The session protocol's own bounds.
MOST_BETA = 1.5
_METRICS = ("cross_entropy", "choice_accuracy")


def check_remote(spec: MergeJobSpec) -> None:
    """Refuse what the provider cannot do.

    Raises:
        InvalidRequestError: names the field.
    """
    remote = spec.remote
    if remote is None:
        return
    if remote.provider != "vllm" and len(remote.base_urls) > 1:
        raise _refused("remote.base_urls", f"{remote.provider} takes one server")
    _CHECKS[remote.provider](spec, remote)


def check_place(spec: MergeJobSpec, settings: Settings) -> None:
    """Refuse a folder that jobs may not write to, and a credential that there is not.

    Raises:
        InvalidRequestError: names the field.
    """
    remote = spec.remote
    if remote is None:
        return
    if remote.adapter_dir is not None:
        folder = Path(remote.adapter_dir)
        inside = any(folder.resolve().is_relative_to(d.resolve()) for d in settings.adapter_dirs)
        if not folder.is_absolute() or not inside:
            raise _refused("remote.adapter_dir", "lies below none of the service's adapter_dirs")
    if remote.credential is not None and remote.credential not in settings.credentials:
        raise _refused("remote.credential", f"no credential {remote.credential!r}")


def their_experts(remote: Remote) -> list[ExpertInput]:
    """The server's adapters as a job's experts. A hash says who they are, not what they hold."""
    found = []
    for name in remote.adapter_ids:
        definition = {
            "provider": remote.provider,
            "base_url": remote.base_urls[0],
            "model": remote.model,
            "adapter": name,
        }
        digest = _digest(definition)
        found.append(
            ExpertInput(
                id=name, name=name, content_hash=digest, kind="remote", definition=definition
            )
        )
    return found


def their_datasets(spec: MergeJobSpec, remote: Remote) -> list[DatasetInput]:
    """The server's datasets as a job's, one opaque row each."""
    return [
        DatasetInput(
            id=one.dataset,
            name=one.dataset,
            path=None,
            content_hash=_digest({**remote.query(), "preset": remote.model, "name": one.dataset}),
            rows=1,
            weight=one.weight,
        )
        for one in spec.objective.datasets
    ]


def _vllm(spec: MergeJobSpec, remote: Remote) -> None:
    _scored_here(spec)
    if remote.adapters is not None:
        raise _refused("remote.adapters", "vllm loads candidates of a pool that is here")
    if remote.model is None:
        raise _refused("remote.model", "vllm needs the base model's name there")
    if remote.adapter_dir is None:
        raise _refused("remote.adapter_dir", "vllm reads candidates from a folder")


def _lorax(spec: MergeJobSpec, remote: Remote) -> None:
    _scored_here(spec)
    if remote.adapters is None:
        if remote.adapter_dir is None:
            raise _refused(
                "remote.adapter_dir",
                "lorax reads candidates of a pool that is here from a folder; without one name "
                "remote.adapters that it holds",
            )
        return
    if len(remote.adapter_ids) < 2:
        raise _refused("remote.adapters", "lorax ignores the weight of one adapter alone")
    if spec.composition != "factor":
        raise _refused(
            "composition",
            f"{spec.composition!r}: merged_adapters weighs A and B each, which is 'factor'; exact "
            "merges need a pool that is here and remote.adapter_dir",
        )
    _whole_adapters(spec, "lorax's merged_adapters")
    if spec.objective.end_of_text and remote.end_of_text is None:
        raise _refused(
            "remote.end_of_text",
            "say how the base spells its end of text, or set objective.end_of_text to false",
        )


def _llama_cpp(spec: MergeJobSpec, remote: Remote) -> None:
    _scored_here(spec)
    if remote.adapters is None:
        raise _refused("remote.adapters", "llama.cpp merges adapters that it was started with")
    for place, name in enumerate(remote.adapter_ids):
        if not name.isdecimal():
            raise _refused(f"remote.adapters.{place}", f"{name!r} is not a number")
    if spec.composition != "exact":
        raise _refused("composition", f"{spec.composition!r}: llama.cpp's scales are 'exact'")
    _whole_adapters(spec, "llama.cpp")
    if spec.objective.end_of_text:
        raise _refused(
            "objective.end_of_text",
            "llama.cpp scores answers of one token, which end of text would make two: set false",
        )


def _bmm(spec: MergeJobSpec, remote: Remote) -> None:
    if remote.adapters is None:
        raise _refused("remote.adapters", "say how many adapters the preset has")
    if remote.model is None:
        raise _refused("remote.model", "bmm needs the preset's id")
    if spec.objective.metric != "cross_entropy" or spec.objective.report:
        raise _refused("objective.metric", "the metric is the preset's own: leave it, and report")
    if remote.held_out is not None and len(remote.held_out) != len(spec.objective.datasets):
        raise _refused(
            "remote.held_out",
            f"{len(remote.held_out)} datasets for {len(spec.objective.datasets)} to search on",
        )
    method = spec.method
    if isinstance(method, EvoMergingMethod | CmaMethod):
        bounds, where = method.scaling.bounds, "method.scaling.bounds"
    elif isinstance(method, Boxed | LorahubMethod):
        bounds, where = method.bounds, "method.bounds"
    else:
        return
    if bounds.low < -MOST_BETA or bounds.high > MOST_BETA:
        raise _refused(where, f"[{bounds.low:g}, {bounds.high:g}] exceeds the protocol's ±1.5")


_CHECKS: dict[str, Callable[[MergeJobSpec, Remote], None]] = {
    "vllm": _vllm,
    "lorax": _lorax,
    "llama_cpp": _llama_cpp,
    "bmm": _bmm,
}


def _scored_here(spec: MergeJobSpec) -> None:
    """The metrics that prompt log-probabilities give."""
    wanted = [("objective.metric", spec.objective.metric)]
    wanted += [(f"objective.report.{n}", one) for n, one in enumerate(spec.objective.report)]
    for where, metric in wanted:
        if metric not in _METRICS:
            raise _refused(where, f"{metric!r}: a provider scores {' and '.join(_METRICS)}")


def _whole_adapters(spec: MergeJobSpec, who: str) -> None:
    if isinstance(spec.method, EvoMergingMethod) and "denoising" in spec.method.stages:
        raise _refused(
            "method.stages",
            f"{who} keeps adapters whole, alpha cannot travel: use ['scaling'] alone",
        )


def _refused(param: str, reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"{param}: {reason}", param=param)


def _digest(content: Mapping[str, object]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
