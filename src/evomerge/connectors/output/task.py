"""What all experts are asked for about every example."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self

from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.output.errors import ExpertUnableError, TaskSettingError
from evomerge.connectors.output.labels import LETTERS
from evomerge.merging.output.fusion import FusionKind

ChoiceMethod = Literal["prompt_logprobs", "first_token", "samples"]


@dataclass(frozen=True)
class Task:
    """How the outputs of experts are had. The objective of a job gives most of it.

    Attributes:
        kind: which fusion the answers are for, see `merging.output.fusion.fusion_kind`.
        metric: what candidates are scored by.
        reported: further metrics of the same kind that the proof measures.
        max_tokens: of an answer in words (the objective's max_new_tokens).
        answer_prefix: between prompt and answer where both are one text to continue.
        samples: independent answers of each expert to each question, where answers are drawn:
            extraction, free text, and choices by samples.
        temperature: of several samples of an expert that does not set its own.
        choice_method: how option probabilities are had; auto: the best that an expert's API gives.
        smoothing: pseudo-count of each option, lambda, where samples are counted.

    An API cannot be shown the end-of-text token, so that an objective's `end_of_text` has no
    meaning here.
    """

    kind: FusionKind
    metric: str
    reported: tuple[str, ...] = ()
    max_tokens: int = 64
    answer_prefix: str = " "
    samples: int = 1
    temperature: float = 0.7
    choice_method: ChoiceMethod | Literal["auto"] = "auto"
    smoothing: float = 0.5

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise TaskSettingError("max_tokens", self.max_tokens, "must be at least 1")
        if self.samples < 1:
            raise TaskSettingError("samples", self.samples, "must be at least 1")
        if not self.smoothing > 0:
            raise TaskSettingError("smoothing", self.smoothing, "must be above 0")
        if self.samples > 1 and not self.temperature > 0:
            raise TaskSettingError(
                "temperature", self.temperature, "must be above 0 for several samples"
            )

    def to_json(self) -> dict[str, Any]:
        """As stored with a merged model, which asks as its search asked."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """What `to_json` gave, read back; unknown fields of other versions are left out."""
        known = {one.name for one in fields(cls)}
        found = {name: value for name, value in stored.items() if name in known}
        return cls(**{**found, "reported": tuple(found.get("reported", ()))})


def choice_method(expert: ApiExpert, task: Task, options: int) -> ChoiceMethod:
    """How one expert is asked about an example with that many options.

    `auto` takes prompt_logprobs from an expert that is asked by completions (a chat model would
    miss its template), else first_token, else samples.

    Raises:
        ExpertUnableError: the task names a method that the expert's API, or this number of
            options, does not allow.
    """
    can = expert.capabilities
    echoes = can.prompt_logprobs and can.batches
    # One token must tell all labels apart, and there are as many letters.
    alternatives = bool(can.alternatives) and options <= len(LETTERS)
    match task.choice_method:
        case "auto":
            if echoes and can.interface == "completions":
                return "prompt_logprobs"
            return "first_token" if alternatives else "samples"
        case "prompt_logprobs" if not echoes:
            raise ExpertUnableError(
                expert.name,
                "cannot be asked by prompt_logprobs: its API does not give log-probabilities of "
                "prompts, or not of several in one request",
            )
        case "first_token" if not alternatives:
            why = (
                f"one token cannot name {options} options, at most {len(LETTERS)}"
                if can.alternatives
                else "its API gives no alternatives to a token"
            )
            raise ExpertUnableError(expert.name, f"cannot be asked by first_token: {why}")
        case named:
            return named


def check(expert: ApiExpert, task: Task) -> None:
    """Refuse, before anything is asked, an expert that cannot do a task of any example.

    Raises:
        ExpertUnableError: its API does not give what the task needs.
    """
    if task.kind == "scored_text" and not expert.capabilities.prompt_logprobs:
        raise ExpertUnableError(
            expert.name,
            "cannot score given text: its API does not give log-probabilities of prompts, which "
            "cross_entropy on completions and on raw text needs",
        )
    if task.kind == "choice":
        choice_method(expert, task, options=1)
