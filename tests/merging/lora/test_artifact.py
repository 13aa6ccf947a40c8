"""What is stored is what was evaluated, and PEFT loads it."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tests.support.tiny import linear_shapes
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from evomerge.merging import storing
from evomerge.merging.errors import ArtifactWriteError, DiskFullError
from evomerge.merging.lora import artifact
from evomerge.merging.lora.adapter import WEIGHTS_FILE, LoraAdapter, read_adapter
from evomerge.merging.lora.artifact import MergedAdapter, merged_adapter, target_modules
from evomerge.merging.lora.pool import LoraPool, stack_adapters
from evomerge.merging.lora.population import Population
from evomerge.merging.lora.space import Composition, LoraSpace
from evomerge.optimizers.candidate import Candidate, one_hot
from evomerge.optimizers.candidate import base as base_candidate

TOKENS = torch.arange(40).reshape(2, 20) * 5 % 250
CANDIDATE = Candidate(np.array([[0.9, 0.5, 0.7, 1.0]]), np.array([[0.8, -0.6, 0.5, 0.3]]))


@pytest.fixture(scope="module")
def pool(adapters: list[LoraAdapter]) -> LoraPool:
    return stack_adapters(adapters)


def load_base(base: Path) -> LlamaForCausalLM:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()


@torch.inference_mode()
def logits(model: torch.nn.Module) -> torch.Tensor:
    return model(input_ids=TOKENS).logits


@torch.no_grad()
def logits_of_population(base: Path, population: Population) -> torch.Tensor:
    """With the updates of candidate 0 added to the weights."""
    model = load_base(base)
    for module in population.factors:
        model.get_submodule(module).weight += population.update(module, 0)
    return logits(model)


def logits_of_peft(base: Path, folder: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(load_base(base), folder).eval())


@pytest.mark.parametrize("expert", range(4))
@pytest.mark.parametrize("composition", ["factor", "exact"])
def test_one_expert_alone_answers_as_peft_does(
    base: Path, folders: list[Path], pool: LoraPool, composition: Composition, expert: int
) -> None:
    population = LoraSpace(pool, composition).realise([one_hot(expert, 4)])
    ours, theirs = (
        logits_of_population(base, population),
        logits_of_peft(base, folders[expert]),
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (theirs - logits(load_base(base))).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(("composition", "rank"), [("factor", None), ("exact", None), ("exact", 5)])
def test_the_written_folder_answers_in_peft_as_its_population_does(
    base: Path,
    pool: LoraPool,
    tmp_path: Path,
    composition: Composition,
    rank: int | None,
    dtype: torch.dtype,
) -> None:
    merged = merged_adapter(LoraSpace(pool, composition), CANDIDATE, dtype, rank)
    merged.write(tmp_path / "merged", str(base))
    stored = load_file(tmp_path / "merged" / WEIGHTS_FILE)
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    ours = logits_of_population(base, merged.population())
    theirs = logits_of_peft(base, tmp_path / "merged")
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_in_float32_nothing_is_lost(base: Path, pool: LoraPool) -> None:
    space = LoraSpace(pool, "exact")
    merged = merged_adapter(space, CANDIDATE, torch.float32).population()
    whole = space.realise([CANDIDATE])
    assert set(merged.factors) == set(whole.factors) == set(linear_shapes(base))
    for module in whole.factors:
        torch.testing.assert_close(merged.update(module, 0), whole.update(module, 0))


def test_a_written_folder_can_be_an_expert_again(
    base: Path, pool: LoraPool, tmp_path: Path
) -> None:
    merged = merged_adapter(LoraSpace(pool, "exact"), CANDIDATE)
    merged.write(tmp_path / "merged", "some/base")
    adapter = read_adapter(tmp_path / "merged")
    assert adapter.base_name == "some/base"
    adapter.check_against(linear_shapes(base))
    for module, (a, b) in adapter.modules.items():
        assert torch.equal(b @ a, merged.population().update(module, 0))


def test_only_kept_experts_are_stored(pool: LoraPool) -> None:
    candidate = Candidate(np.array([[1.0, 0.0, 1.0, 1.0]]), np.array([[1.0, 1.0, 0.0, 1.0]]))
    merged = merged_adapter(LoraSpace(pool, "exact"), candidate)
    ranks = {module: int(a.shape[0]) for module, (a, _) in merged.modules.items()}
    assert ranks["model.layers.0.self_attn.q_proj"] == 4 + 6
    assert ranks["model.layers.0.mlp.up_proj"] == 4
    assert merged.rank == 10


def test_rank_is_a_limit(pool: LoraPool) -> None:
    assert merged_adapter(LoraSpace(pool, "exact"), CANDIDATE, rank=3).rank == 3


def test_the_base_alone_is_an_adapter_of_zeros(base: Path, pool: LoraPool, tmp_path: Path) -> None:
    merged = merged_adapter(LoraSpace(pool, "exact"), base_candidate(4))
    merged.write(tmp_path / "merged", str(base))
    assert merged.rank == 1
    torch.testing.assert_close(
        logits_of_peft(base, tmp_path / "merged"), logits(load_base(base)), rtol=0, atol=0
    )


def test_values_are_their_own(pool: LoraPool) -> None:
    """Not views of the pool, whose memory they would keep or whose values they would share."""
    merged = merged_adapter(LoraSpace(pool, "exact"), one_hot(0, 4), torch.float32)
    for a, b in merged.modules.values():
        for tensor in (a, b):
            assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_the_same_adapter_gives_the_same_bytes(pool: LoraPool, tmp_path: Path) -> None:
    for name in ("one", "two"):
        merged_adapter(LoraSpace(pool, "exact"), CANDIDATE).write(tmp_path / name, "base")
    for file in ("adapter_config.json", WEIGHTS_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_replaces_what_was_there_and_leaves_nothing_else(pool: LoraPool, tmp_path: Path) -> None:
    folder = tmp_path / "merged"
    folder.mkdir()
    (folder / "old").write_text("old")
    merged_adapter(LoraSpace(pool, "factor"), CANDIDATE).write(folder, "base")
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", WEIGHTS_FILE]
    assert list(tmp_path.iterdir()) == [folder]


def _refuse(number: int) -> None:
    raise OSError(number, "no")


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EIO, ArtifactWriteError)]
)
@pytest.mark.parametrize("step", ["write", "sync"])
def test_a_failed_write_leaves_the_old_folder_and_nothing_else(
    pool: LoraPool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[ArtifactWriteError],
    step: str,
) -> None:
    merged = merged_adapter(LoraSpace(pool, "factor"), CANDIDATE)
    folder = tmp_path / "merged"
    merged.write(folder, "before")
    with monkeypatch.context() as patch:
        if step == "write":
            patch.setattr(artifact, "save", lambda *_, **__: _refuse(number))
        else:
            patch.setattr(storing.os, "fsync", lambda _: _refuse(number))
        with pytest.raises(OSError, match="merged") as caught:
            merged.write(folder, "after")
    assert type(caught.value) is kind
    assert caught.value.errno == number
    assert list(tmp_path.iterdir()) == [folder]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "before"


def test_a_real_full_disk(pool: LoraPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/dev/full is a disk without room: opening it works, writing to it does not."""
    full = tmp_path / "merged"

    def into_the_full(path: Path, content: bytes) -> int:
        with Path("/dev/full").open("wb", buffering=0) as stream:
            return stream.write(content) or 0

    monkeypatch.setattr(Path, "write_bytes", into_the_full)
    with pytest.raises(DiskFullError, match="No space left"):
        merged_adapter(LoraSpace(pool, "factor"), CANDIDATE).write(full, "base")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        (["model.layers.0.q", "model.layers.1.q"], ["q"]),
        (["model.layers.0.q", "model.layers.1.q", "model.layers.1.k"], None),
        (["model.layers.0.q", "lm_head"], None),
    ],
)
def test_targets_are_short_where_that_is_exact(
    modules: list[str], expected: list[str] | None
) -> None:
    assert target_modules(dict.fromkeys(modules)) == (expected or sorted(modules))


def test_ranks_that_differ_are_named_in_full() -> None:
    def factors(rank: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(rank, 3), torch.ones(3, rank)

    modules = {"model.layers.0.q": factors(2), "model.layers.1.q": factors(5)}
    config = MergedAdapter(modules)._config("base")
    assert config["r"] == config["lora_alpha"] == 5
    assert config["rank_pattern"] == config["alpha_pattern"] == {"model.layers.0.q": 2}
