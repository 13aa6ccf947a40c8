"""Reading adapters, and naming what is wrong with bad ones."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.tiny import linear_shapes, make_adapter
from torch import Tensor

from evomerge.merging.lora.adapter import WEIGHTS_FILE, read_adapter, read_header, tensor_name
from evomerge.merging.lora.errors import (
    AdapterConfigError,
    AdapterError,
    AdapterFileError,
    BaseMismatchError,
    PickleFileError,
    TensorError,
)

QUERY = "model.layers.0.self_attn.q_proj"
Edit = Callable[[dict[str, Tensor]], Any]


@pytest.fixture
def folder(tmp_path: Path, base: Path) -> Path:
    return make_adapter(tmp_path / "adapter", base, rank=4)


def configure(folder: Path, **fields: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def rewrite(folder: Path, edit: Edit) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    edit(tensors)
    save_file(tensors, folder / WEIGHTS_FILE)


def test_reads_factors_with_the_scale_in_b(folder: Path, base: Path) -> None:
    stored = load_file(folder / WEIGHTS_FILE)
    adapter = read_adapter(folder)
    assert adapter.name == "adapter"
    assert adapter.base_name == str(base)
    assert set(adapter.modules) == set(linear_shapes(base))
    a, b = adapter.modules[QUERY]
    assert a.dtype == b.dtype == torch.float32
    assert torch.equal(a, stored[tensor_name(QUERY, "A")].float())
    assert torch.equal(b, stored[tensor_name(QUERY, "B")].float() * 2)


def test_scale_follows_patterns_and_rslora(folder: Path) -> None:
    plain = read_adapter(folder).modules
    configure(folder, alpha_pattern={"0.self_attn.q_proj": 3, "v_proj": 1}, use_rslora=True)
    scaled = read_adapter(folder).modules
    value, key = QUERY.replace("q_proj", "v_proj"), QUERY.replace("q_proj", "k_proj")
    for module, scale in ((QUERY, 3 / 2), (value, 1 / 2), (key, 8 / 2)):
        torch.testing.assert_close(scaled[module][1], plain[module][1] / 2 * scale)


def test_ranks_may_differ_by_module(folder: Path) -> None:
    def halve(tensors: dict[str, Tensor]) -> None:
        tensors[tensor_name(QUERY, "A")] = tensors[tensor_name(QUERY, "A")][:2].clone()
        tensors[tensor_name(QUERY, "B")] = tensors[tensor_name(QUERY, "B")][:, :2].clone()

    rewrite(folder, halve)
    with pytest.raises(TensorError, match="has rank 2, the configuration 4"):
        read_header(folder)
    configure(folder, rank_pattern={r"model\.layers\.0\.self_attn\.q_proj": 2})
    assert read_header(folder).shapes[QUERY].rank == 2
    assert read_adapter(folder).modules[QUERY][0].shape[0] == 2


def test_the_hash_is_of_content_alone(folder: Path, tmp_path: Path) -> None:
    first = read_adapter(folder).content_hash
    moved = folder.rename(tmp_path / "elsewhere")
    configure(moved, lora_dropout=0.3, task_type=None)
    assert read_adapter(moved).content_hash == first
    configure(moved, lora_alpha=7)
    assert read_adapter(moved).content_hash != first
    configure(moved, lora_alpha=8)
    rewrite(moved, lambda tensors: tensors[tensor_name(QUERY, "A")][0, 0].add_(1))
    assert read_adapter(moved).content_hash != first


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"),
        ("peft_type", None),
        ("bias", "all"),
        ("use_dora", True),
        ("lora_bias", True),
        ("fan_in_fan_out", True),
        ("modules_to_save", ["lm_head"]),
        ("trainable_token_indices", [3]),
        ("layer_replication", [[0, 2], [1, 3]]),
        ("alora_invocation_tokens", [1, 2]),
        ("use_qalora", True),
        ("use_bdlora", {"x": 1}),
        ("target_parameters", ["mlp.experts.gate_up_proj"]),
        ("megatron_config", {"x": 1}),
        ("arrow_config", {"x": 1}),
        ("init_lora_weights", "pissa"),
        ("a_field_of_the_future", True),
        ("r", 0),
        ("r", "4"),
        ("lora_alpha", math.nan),
        ("lora_alpha", True),
        ("rank_pattern", [1]),
        ("rank_pattern", {"q_proj": 0}),
        ("alpha_pattern", {"q_proj": "x"}),
        ("alpha_pattern", {"(q_proj": 1}),
        ("alpha_pattern", {"(a+)+(b+)+c": 1}),
    ],
)
def test_refuses_by_name_what_it_cannot_honour(folder: Path, field: str, value: object) -> None:
    configure(folder, **{field: value})
    with pytest.raises(AdapterConfigError, match=f"adapter_config.json: {field}"):
        read_header(folder)


def test_fields_that_are_off_do_no_harm(folder: Path) -> None:
    configure(folder, a_field_of_the_future=False, layers_to_transform=[0], modules_to_save=[])
    read_header(folder)


def _spoil(name: str, value: float) -> Edit:
    return lambda tensors: tensors[name][1, 1].fill_(value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("factor", ["A", "B"])
def test_refuses_numbers_that_are_none(folder: Path, factor: str, value: float) -> None:
    name = tensor_name(QUERY, factor)
    rewrite(folder, _spoil(name, value))
    with pytest.raises(TensorError, match="holds NaN or infinity") as caught:
        read_adapter(folder)
    assert caught.value.tensor == name


def test_refuses_a_scale_that_overflows(folder: Path) -> None:
    configure(folder, lora_alpha=1e300)
    with pytest.raises(TensorError, match="overflows"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda t: t.pop(tensor_name(QUERY, "A")), "has no partner"),
        (lambda t: t.pop(tensor_name(QUERY, "B")), "has no partner"),
        (lambda t: t.update(extra=torch.ones(1)), "'extra' is not a factor"),
        (
            lambda t: t.update({f"base_model.model.{QUERY}.lora_magnitude_vector": torch.ones(2)}),
            "is not a factor",
        ),
        (
            lambda t: t.update({"base_model.model.wte.lora_embedding_A": torch.ones(4, 9)}),
            "is not a factor",
        ),
        (
            lambda t: t.update({tensor_name(QUERY, "A"): torch.ones(4, 32, 1, 1)}),
            "no factor of a matrix",
        ),
        (
            lambda t: t.update({tensor_name(QUERY, "A"): torch.ones(4, 32, dtype=torch.int8)}),
            "is of dtype I8",
        ),
        (lambda t: t.update({tensor_name(QUERY, "B"): torch.ones(32, 5)}), "has rank 5"),
    ],
)
def test_refuses_tensors_by_name(folder: Path, edit: Edit, reason: str) -> None:
    rewrite(folder, edit)
    with pytest.raises(TensorError, match=reason):
        read_header(folder)


def test_refuses_an_empty_adapter(folder: Path) -> None:
    rewrite(folder, dict.clear)
    with pytest.raises(AdapterFileError, match="holds no tensor"):
        read_header(folder)


@pytest.mark.parametrize("name", ["adapter_model.bin", WEIGHTS_FILE])
def test_refuses_a_pickle(folder: Path, name: str) -> None:
    (folder / WEIGHTS_FILE).unlink()
    (folder / name).write_bytes(pickle.dumps({"weights": list(range(100))}))
    with pytest.raises(PickleFileError, match=name):
        read_header(folder)


def test_refuses_the_archive_that_torch_saves(folder: Path) -> None:
    torch.save({"x": torch.ones(2)}, folder / WEIGHTS_FILE)
    with pytest.raises(PickleFileError):
        read_header(folder)


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{" * 30])
def test_refuses_garbage(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(AdapterFileError, match=WEIGHTS_FILE):
        read_header(folder)


def test_refuses_a_file_cut_short(folder: Path) -> None:
    content = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(content[:-10])
    with pytest.raises(AdapterFileError):
        read_header(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", '"x"', "[" * 100_000])
def test_refuses_a_configuration_that_is_no_object(folder: Path, content: str) -> None:
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(AdapterFileError, match=r"adapter_config\.json"):
        read_header(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", WEIGHTS_FILE])
def test_names_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(AdapterFileError, match=f"{name}: No such file"):
        read_header(folder)


def test_fits_its_base(folder: Path, base: Path) -> None:
    shapes = linear_shapes(base)
    read_header(folder).check_against(shapes)
    read_adapter(folder).check_against(shapes)


@pytest.mark.parametrize(("shape", "factor"), [((32, 31), "A"), ((31, 32), "B"), (None, "A")])
def test_names_the_tensor_that_does_not_fit_the_base(
    folder: Path, base: Path, shape: tuple[int, int] | None, factor: str
) -> None:
    shapes = {k: v for k, v in linear_shapes(base).items() if k != QUERY}
    if shape is not None:
        shapes[QUERY] = shape
    with pytest.raises(BaseMismatchError) as caught:
        read_header(folder).check_against(shapes)
    assert caught.value.tensor == tensor_name(QUERY, factor)
    assert isinstance(caught.value, AdapterError)
