"""mergenetic: pymoo's genetic algorithm over mergekit's task arithmetic, weights in [0, 1].

It merges whole checkpoints on disk, loads each and scores it; the scoring is the user's, here the
mean loss of the search rows. Its pins are older than the experts' files: each expert is written as
a checkpoint first, with plain torch and the older names of two settings; and it keeps tensors on a
GPU whether there is one or not, which is set from outside.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from mergenetic.merging import TaskArithmeticMerger
from mergenetic.merging import merger as merging
from mergenetic.optimization import MergingProblem
from mergenetic.searcher import Searcher
from pymoo.algorithms.soo.nonconvex.ga import GA
from safetensors.torch import load_file, save_file
from shared import Clock, mean_nll, read_task, seed_all, write_report

WEIGHTS = "adapter_model.safetensors"


def write_base(task: Any) -> Path:
    """The base under the names that transformers 4 reads."""
    folder = Path(shutil.copytree(task.base, task.folder / "checkpoints" / "base"))
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["rope_theta"] = (config.pop("rope_parameters", None) or {}).get("rope_theta", 10000.0)
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def write_checkpoint(base: Path, expert: Path, folder: Path) -> Path:
    """Base and adapter as one checkpoint: W + alpha / r * B A."""
    shutil.copytree(base, folder)
    config = json.loads((expert / "adapter_config.json").read_text())
    scale = config["lora_alpha"] / config["r"]
    tensors, factors = load_file(base / "model.safetensors"), load_file(expert / WEIGHTS)
    for name, a in factors.items():
        if ".lora_A." not in name:
            continue
        target = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
        b = factors[name.replace(".lora_A.", ".lora_B.")]
        weight = tensors[target]
        tensors[target] = (weight.float() + scale * b.float() @ a.float()).to(weight.dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def on_the_cpu(options: Any, **fields: Any) -> Any:
    """Its options of mergekit less the one that keeps tensors on a GPU, there or not."""
    return options(**{**fields, "low_cpu_memory": False})


class RowsProblem(MergingProblem):
    """Its problem, with the rows' mean loss as the one objective."""

    rows: Any
    losses: list[float]

    def metrics_4_genotype(self, model: Any, tokenizer: Any = None) -> tuple[list[float], None]:
        self.losses.append(mean_nll(model.float(), self.rows))
        return [self.losses[-1]], None

    def test(self) -> None:
        raise NotImplementedError


def main() -> None:
    task = read_task()
    seed_all(task.seed)
    merging.MergeOptions = partial(on_the_cpu, merging.MergeOptions)
    base = write_base(task)
    checkpoints = [
        write_checkpoint(base, folder, task.folder / "checkpoints" / name)
        for name, folder in task.experts.items()
    ]
    merger = TaskArithmeticMerger(
        run_id="peers",
        path_to_base_model=str(base),
        model_paths=[str(path) for path in checkpoints],
        path_to_store_yaml=str(task.folder / "yaml"),
        path_to_store_merged_model=str(task.folder / "merged"),
        dtype="float32",
    )
    problem = RowsProblem(
        merger,
        search_df=None,
        n_var=len(checkpoints),
        n_obj=1,
        device="cpu",
        load_in_4bit=False,
    )
    problem.rows, problem.losses = task.search, []
    clock = Clock()
    searcher = Searcher(
        problem,
        GA(pop_size=task.population),
        str(task.folder),
        n_iter=max(1, task.budget // task.population),
        seed=task.seed,
        run_id="peers",
        verbose=False,
    )
    searcher.search()
    seconds = clock.seconds()
    merged = merger.merge_model_from_configuration(
        merger.create_individual_configuration(searcher.result_X)
    )
    write_report(
        task,
        Path(merged),
        "checkpoint",
        evaluations=len(problem.losses),
        search_loss=min(problem.losses),
        search_seconds=seconds,
        packages=["mergenetic", "mergekit", "pymoo", "torch", "transformers"],
        note="without vllm, bitsandbytes and its use of a GPU, which are asked for in any case",
    )


if __name__ == "__main__":
    main()
