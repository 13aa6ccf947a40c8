"""Fake servers of the providers that merge, over the tiny Llama, and what asks them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from tests.support.fake_llama_cpp import FakeLlamaCpp
from tests.support.fake_lorax import FakeLorax
from tests.support.fake_vllm import FakeVllm
from tests.support.loopback import serving
from tests.support.tiny import END_OF_TEXT, make_adapter, make_base
from tests.support.tiny_model import TinyModel, read_factors

from evomerge.connectors.client import Caller
from evomerge.connectors.hosts import HostPolicy, Hosts
from evomerge.connectors.limits import EndpointLimits
from evomerge.connectors.llama_cpp import LlamaCppMerger
from evomerge.connectors.local.rows import RowEncoder
from evomerge.connectors.lorax import LoraxMerger, Texts
from evomerge.connectors.question import Endpoint, Provider
from evomerge.connectors.remote import Merger
from evomerge.connectors.retries import Retries
from evomerge.connectors.server import Server
from evomerge.connectors.shelf import Shelf
from evomerge.connectors.vllm import RANKS, VllmMerger
from evomerge.evaluation.example import Example
from evomerge.merging.lora.pool import LoraPool, stack_folders
from evomerge.merging.lora.space import LoraSpace
from evomerge.merging.lora.writer import AdapterWriter

EXAMPLES = (
    Example("Berlin is in", "Germany", choices=("Spain", "Germany"), row=1),
    Example("a", "b", choices=("b", "cde"), row=2),
    Example("The capital of the largest country of Europe is", "M", choices=("M", "P"), row=3),
)


Fake = TypeVar("Fake")


@dataclass(frozen=True)
class Ground(Generic[Fake]):
    """What a remote evaluator stands on.

    Attributes:
        merger: makes one for an event loop.
        weights, pool: what the servers compute with.
        servers: their state.
        folder: where candidates are materialised, if they are.
        examples: that it can score.
        url: of the only server.
    """

    merger: Callable[[Caller], Merger]
    weights: Path
    pool: LoraPool
    servers: Sequence[Fake]
    folder: Path
    examples: tuple[Example, ...] = EXAMPLES
    url: str = ""


@asynccontextmanager
async def calling(attempts: int = 2) -> AsyncIterator[Caller]:
    """What may call loopback, and waits for nothing between attempts."""

    async def at_once(seconds: float) -> None:
        return None

    policy = HostPolicy.of(["127.0.0.1"], ["127.0.0.0/8"])
    limits = {"*": EndpointLimits(attempts=attempts)}
    caller = Caller(Hosts(policy), limits=limits, retries=Retries(sleep=at_once))
    try:
        yield caller
    finally:
        await caller.close()


def server(caller: Caller, provider: Provider, url: str, model: str = "tiny") -> Server:
    return Server(caller, Endpoint(provider, url, model))


def tiny_pool(folder: Path) -> tuple[Path, list[Path]]:
    """A base and two adapters of one rank."""
    weights = make_base(folder / "base")
    return weights, [make_adapter(folder / f"e{n}", weights, seed=n) for n in range(2)]


@contextmanager
def vllm(folder: Path) -> Iterator[Ground[FakeVllm]]:
    """Two replicas."""
    weights, adapters = tiny_pool(folder)
    pool = stack_folders(adapters)
    fakes = [FakeVllm(TinyModel(weights)) for _ in range(2)]
    encoder = RowEncoder(fakes[0].model.tokenizer, 255)
    writer = AdapterWriter(LoraSpace(pool, "exact"), "tiny", torch.float32, rank=16, ranks=RANKS)
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(fake.app())) for fake in fakes]

        def merger(caller: Caller) -> Merger:
            replicas = [server(caller, "vllm", url) for url in urls]
            shelf = Shelf(folder / "shelf", writer.name, writer.write)
            return VllmMerger(replicas, encoder, shelf)

        yield Ground(merger, weights, pool, fakes, folder / "shelf")


@contextmanager
def lorax(folder: Path) -> Iterator[Ground[FakeLorax]]:
    """Adapters that the server knows, by name."""
    weights, adapters = tiny_pool(folder)
    model = TinyModel(weights)
    fake = FakeLorax(model, {path.name: read_factors(path) for path in adapters})
    texts = Texts(end=END_OF_TEXT)
    with serving(fake.app()) as url:

        def merger(caller: Caller) -> Merger:
            return LoraxMerger(server(caller, "lorax", url), texts, list(fake.adapters))

        yield Ground(merger, weights, stack_folders(adapters), [fake], folder, url=url)


LABELLED = (
    Example("Berlin is in", "G", choices=("S", "G"), row=1),
    Example("a", "b", choices=("b", "c"), row=2),
    Example("The capital of the largest country of Europe is", "M", choices=("M", "P"), row=3),
)


@contextmanager
def llama_cpp(folder: Path) -> Iterator[Ground[FakeLlamaCpp]]:
    """A server that has an adapter which is not in the pool, too."""
    weights, adapters = tiny_pool(folder)
    other = make_adapter(folder / "other", weights, seed=9)
    fake = FakeLlamaCpp(TinyModel(weights), [read_factors(one) for one in (*adapters, other)])
    # One token a byte: the space before an answer belongs to the prompt.
    texts = Texts(answer_prefix="")
    with serving(fake.app()) as url:

        def merger(caller: Caller) -> Merger:
            asked = server(caller, "llama_cpp", url)
            return LlamaCppMerger(asked, texts, [0, 1], alternatives=300)

        pool = stack_folders(adapters)
        yield Ground(merger, weights, pool, [fake], folder, LABELLED, url=url)


REMOTE: Mapping[str, Callable[[Path], AbstractContextManager[Ground[Any]]]] = {
    "vllm": vllm,
    "lorax": lorax,
    "llama_cpp": llama_cpp,
}
