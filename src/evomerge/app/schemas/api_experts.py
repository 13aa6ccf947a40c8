"""Experts that are known by their API: how they are called."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from evomerge.app.schemas.base import Body, Metadata, Name, Reference, Text
from evomerge.connectors.expert import PROMPT, ApiExpert, Capabilities, Price
from evomerge.connectors.question import Endpoint, Sampling

API_EXPERT_EXAMPLE: dict[str, Any] = {
    "kind": "api",
    "name": "film-editor",
    "provider": "openai",
    "base_url": "https://api.openai.com/v1",
    "model": "gpt-4o-mini",
    "credential": "openai",
    "system": "You name the films in a text, and nothing else.",
    "template": "Text: {prompt}\nFilms:",
    "price": {"input": 0.15, "output": 0.6},
}


class SamplingFields(Body):
    """How an expert answers, where the job does not say; its length is the job's."""

    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    stop: list[Text] = Field(default_factory=list, max_length=4)
    seed: int | None = Field(None, ge=0, le=2**63 - 1)


class PriceFields(Body):
    """US dollars a million tokens."""

    input: float = Field(0.0, ge=0)
    output: float = Field(0.0, ge=0)


class ApiDefinition(Body):
    """An endpoint, and the prompt that makes an expert of it."""

    provider: Literal["openai", "anthropic"] = Field(
        "openai", description="Wire format; openai is every OpenAI-compatible server."
    )
    base_url: Text = Field(
        min_length=1,
        max_length=2048,
        description="Up to and with the version; its host must be among the allowed ones.",
    )
    model: Text = Field(min_length=1, max_length=255, description="The model's name there.")
    interface: Literal["auto", "chat", "completions"] = Field(
        "auto", description="How it is asked; auto is what the probe finds."
    )
    credential: Reference | None = Field(
        None, description="Name of a credential in the service's settings, bound to that host."
    )
    system: Text | None = Field(None, max_length=100_000, description="System prompt.")
    template: Text = Field(
        PROMPT,
        max_length=100_000,
        description="What every prompt is put into; holds {prompt} exactly once.",
    )
    sampling: SamplingFields = Field(default_factory=SamplingFields)
    price: PriceFields = Field(default_factory=PriceFields)

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("template")
    @classmethod
    def _holds_the_prompt(cls, value: str) -> str:
        if (found := value.count(PROMPT)) != 1:
            raise ValueError(f"must hold {PROMPT} exactly once, holds it {found} times")
        return value

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""
        return Endpoint(self.provider, self.base_url, self.model, self.credential)

    def expert(self, name: str, capabilities: Capabilities) -> ApiExpert:
        """The expert as the connectors know it."""
        return ApiExpert(
            name=name,
            endpoint=self.endpoint,
            system=self.system,
            template=self.template,
            sampling=Sampling(
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p,
                stop=tuple(self.sampling.stop),
                seed=self.sampling.seed,
            ),
            price=Price(self.price.input, self.price.output),
            capabilities=capabilities,
        )


class ApiExpertCreate(ApiDefinition):
    """A model behind an API with a prompt of its own; one endpoint can give many experts.

    The endpoint is probed: a few small requests find out what it can do.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [API_EXPERT_EXAMPLE]})

    kind: Literal["api"]
    name: Name
    metadata: Metadata = Field(default_factory=dict)

    @property
    def definition(self) -> dict[str, Any]:
        """As it is stored: every default written out, and no secret, for it names none."""
        return self.model_dump(mode="json", include=set(ApiDefinition.model_fields))
