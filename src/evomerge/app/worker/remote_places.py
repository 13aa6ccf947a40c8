"""Providers made ready for a job: who is asked, in which words, about which adapters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from evomerge.app.connections import connectors
from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.remote import Remote
from evomerge.app.schemas.spec import MergeJobSpec, Metric
from evomerge.app.settings import Settings
from evomerge.app.worker.benches import LoraBenches
from evomerge.app.worker.order import Order
from evomerge.app.worker.remote_bench import Place
from evomerge.connectors.bmm import BmmEvaluator
from evomerge.connectors.client import Caller
from evomerge.connectors.errors import AskError
from evomerge.connectors.llama_cpp import LlamaCppMerger
from evomerge.connectors.lorax import LoraxMerger, Texts
from evomerge.connectors.question import Endpoint
from evomerge.connectors.remote import Merger, RemoteEvaluator
from evomerge.connectors.server import Server, root
from evomerge.optimizers import Candidate


@dataclass(frozen=True)
class Places:
    """Makes providers ready.

    Attributes:
        settings: of the deployment.
        lora: loads pools that are here.
    """

    settings: Settings
    lora: LoraBenches

    def place(self, order: Order, caller: Caller) -> Place:
        """The provider of a job. Slow where the pool is here: call it in a thread.

        Raises:
            JobError: an input is not here, or has changed.
            ConnectorError, MergingError: the base or an adapter cannot be read.
        """
        spec, remote = order.spec, order.spec.remote
        if remote is None:
            raise ValueError(f"job {order.job_id} names no provider")
        servers = [_server(caller, remote, url) for url in remote.base_urls]
        if remote.provider == "bmm":
            return self._bmm(order, remote, servers[0])
        if remote.adapters is None:
            # Here, not above: without a pool that is here, torch is not needed.
            from evomerge.app.worker.remote_shelf import shelved

            return shelved(self.settings, self.lora, order, remote, servers)
        texts = Texts(
            spec.objective.answer_prefix,
            (remote.end_of_text or "") if spec.objective.end_of_text else "",
        )
        merger: Merger
        if remote.provider == "lorax":
            merger = LoraxMerger(servers[0], texts, remote.adapter_ids)
        else:
            merger = LlamaCppMerger(servers[0], texts, [int(one) for one in remote.adapter_ids])
        return _at_the_server(spec, remote, order.inputs, merger)

    def _bmm(self, order: Order, remote: Remote, server: Server) -> Place:
        preset, experts = remote.model or "", len(order.inputs.experts)

        @cache
        def scorer(metric: Metric) -> BmmEvaluator:
            return BmmEvaluator(server, preset, experts, remote.query())

        def keep(candidate: Candidate, folder: Path) -> dict[str, Any]:
            first = order.spec.objective.datasets[0].dataset
            dataset = "" if first == preset else first
            # A loop of its own: results are written in a thread.
            return {"materialized": asyncio.run(self._materialized(order, candidate, dataset))}

        return Place(about(remote), remote.adapter_ids, identity(remote), scorer, scorer, keep)

    async def _materialized(self, order: Order, candidate: Candidate, dataset: str) -> str | None:
        """Where the server has written the winner; None where this key may not have it so."""
        remote = order.spec.remote
        if remote is None:
            return None
        async with connectors(self.settings) as ask:
            server = _server(ask.caller, remote, remote.base_urls[0])
            experts = len(order.inputs.experts)
            session = BmmEvaluator(server, remote.model or "", experts, remote.query())
            try:
                return await session.materialize(candidate, dataset)
            except AskError:
                return None


def about(remote: Remote) -> dict[str, Any]:
    """What a result tells of its provider."""
    return {
        "provider": remote.provider,
        "base_urls": list(remote.base_urls),
        "model": remote.model,
    }


def identity(remote: Remote) -> str:
    """A digest of who a server is: of its weights nothing is known."""
    return sha256(json.dumps(about(remote), sort_keys=True).encode()).hexdigest()


def scoring(merger: Merger) -> Callable[[Metric], RemoteEvaluator]:
    """Evaluators over one merger, one a metric."""

    @cache
    def scorer(metric: Metric) -> RemoteEvaluator:
        return RemoteEvaluator(merger, metric)

    return scorer


def _at_the_server(spec: MergeJobSpec, remote: Remote, inputs: JobInputs, merger: Merger) -> Place:
    scorer = scoring(merger)
    told = {**about(remote), "composition": spec.composition}
    return Place(told, remote.adapter_ids, identity(remote), scorer, scorer)


def _server(caller: Caller, remote: Remote, url: str) -> Server:
    model = remote.model or ""
    return Server(caller, Endpoint(remote.provider, root(url), model, remote.credential))
