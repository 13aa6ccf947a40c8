"""The calls that a job in the remote space would make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evomerge.app.schemas.remote import Remote
from evomerge.app.schemas.spec import MergeJobSpec, Metric
from evomerge.app.services import tokens
from evomerge.app.services.foreseen import Foreseen
from evomerge.app.worker.inputs import Data, metrics
from evomerge.app.worker.remote_bench import CONTENDERS
from evomerge.connectors.expert import Price
from evomerge.connectors.server import Most
from evomerge.connectors.vllm import BATCH_ROWS
from evomerge.evaluation import Example


@dataclass(frozen=True)
class _Counting:
    """What one candidate takes on some examples, its tokens guessed by their bytes."""

    spec: MergeJobSpec
    remote: Remote

    def one(self, examples: Sequence[Example], asked: Sequence[Metric]) -> Most:
        return sum((self._under(examples, metric) for metric in asked), Most())

    def _under(self, examples: Sequence[Example], metric: Metric) -> Most:
        if self.remote.provider == "bmm":
            return Most(len(examples))
        texts = len(examples)
        if metric == "choice_accuracy" and self.remote.provider != "llama_cpp":
            texts = sum(len(example.choices) for example in examples)
        requests = texts
        if self.remote.provider == "vllm":
            replicas = len(self.remote.base_urls)
            requests = math.ceil(texts / BATCH_ROWS) + 2 * replicas
        read = tokens.total(examples, [metric], tokens.guessed(self.spec.objective))
        return Most(requests, read, texts)


def foreseen_remote(spec: MergeJobSpec, remote: Remote, data: Data, evaluations: int) -> Foreseen:
    """Calls of search and proof, at most; what a server is asked once for all is left out."""
    counting = _Counting(spec, remote)
    search = evaluations * counting.one(data.search.examples, [spec.objective.metric])
    proof = CONTENDERS * counting.one(data.held_out.examples, metrics(spec))
    whole = search + proof
    price = Price(remote.price.input, remote.price.output)
    usd = price.of(whole.input_tokens, whole.output_tokens)
    return Foreseen(
        answers=0,
        answers_known=0,
        requests=whole.requests,
        input_tokens=whole.input_tokens,
        output_tokens=whole.output_tokens,
        usd=usd,
    )
