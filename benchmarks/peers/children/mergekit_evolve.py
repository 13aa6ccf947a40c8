"""mergekit-evolve: CMA-ES over the weights of task arithmetic, scored by lm-eval.

Its rows are a local lm-eval task whose score is the mean log-likelihood of an answer, which ranks
candidates exactly as the mean loss a token does. It runs in memory, its fastest form.

Two things are set from outside. It asks Ray for a GPU: Ray is told that this machine has one, and
nothing uses it. And it names lm-eval's class for vllm in any case, which lm-eval has only where
vllm, and so CUDA, is installed: an empty class of that name is put there, and nothing uses it. What
is counted is counted by wrapping its evaluation, which runs as it is.
"""

from __future__ import annotations

import json
import math
import sys
from types import ModuleType
from typing import Any

import ray
import yaml
from shared import Clock, read_task, seed_all, write_report

TASK = "peers_rows"


def stand_in_for_vllm() -> None:
    """Put the name there that mergekit's modules need when they are imported."""
    import lm_eval.models

    module = ModuleType("lm_eval.models.vllm_causallms")
    module.VLLM = type("VLLM", (), {})
    sys.modules[module.__name__] = module
    lm_eval.models.vllm_causallms = module


def write_rows(task: Any) -> None:
    """The lm-eval task and its rows."""
    end = end_of_text(task)
    lines = [{"prompt": row.prompt, "said": f" {row.completion}{end}"} for row in task.search]
    rows = task.folder / "lm-eval" / "rows.jsonl"
    rows.parent.mkdir()
    rows.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    fields = {
        "task": TASK,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "loglikelihood",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{said}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "perplexity", "aggregation": "mean", "higher_is_better": True}],
    }
    (rows.parent / f"{TASK}.yaml").write_text(yaml.safe_dump(fields))


def end_of_text(task: Any) -> str:
    """The text of the token that ends an answer."""
    from transformers import AutoTokenizer

    return str(AutoTokenizer.from_pretrained(task.base).eos_token)


def write_genome(task: Any) -> str:
    """Its configuration: every expert as base and adapter, weights of either sign."""
    fields = {
        "genome": {
            "models": [f"{task.base}+{folder}" for folder in task.experts.values()],
            "base_model": str(task.base),
            "merge_method": "task_arithmetic",
            "allow_negative_weights": True,
        },
        "tasks": [{"name": TASK, "weight": 1.0, "metric": "perplexity,none"}],
        "apply_chat_template": False,
        "fewshot_as_multiturn": False,
    }
    path = task.folder / "genome.yaml"
    path.write_text(yaml.safe_dump(fields))
    return str(path)


def main() -> None:
    task = read_task()
    seed_all(task.seed)
    write_rows(task)
    stand_in_for_vllm()
    from mergekit.evo.strategy import ActorPoolEvaluationStrategy
    from mergekit.scripts.evolve import main as evolve

    ray.init(
        num_cpus=2,
        num_gpus=1,
        include_dashboard=False,
        # In its workers too, before they import mergekit.
        runtime_env={"worker_process_setup_hook": stand_in_for_vllm},
    )
    scores: list[float] = []
    clocks: list[Clock] = []
    seconds = [0.0]
    evaluate = ActorPoolEvaluationStrategy.evaluate_genotypes

    def counted(self: Any, genotypes: Any) -> Any:
        clocks[:] = clocks or [Clock()]
        results = evaluate(self, genotypes)
        scores.extend(result["score"] for result in results)
        seconds[0] = clocks[0].seconds()
        return results

    ActorPoolEvaluationStrategy.evaluate_genotypes = counted
    storage = task.folder / "mergekit"
    arguments = [
        write_genome(task),
        *("--storage-path", str(storage)),
        *("--max-fevals", str(task.budget)),
        *("--random-seed", str(task.seed)),
        *("--num-gpus", "1"),
        *("--batch-size", "64"),
        *("--task-search-path", str(task.folder / "lm-eval")),
        "--no-merge-cuda",
        "--in-memory",
    ]
    evolve(arguments, standalone_mode=False)
    tokens = sum(len(row.tokens) - row.start for row in task.search)
    best = max((score for score in scores if score is not None), default=-math.inf)
    write_report(
        task,
        storage / "final_model",
        "checkpoint",
        evaluations=len(scores),
        search_loss=-best * len(task.search) / tokens,
        search_seconds=seconds[0],
        packages=["mergekit", "lm_eval", "ray", "cma", "torch", "transformers"],
        note="Ray is told of a GPU that is not there, lm-eval's class for vllm is an empty one, "
        "and its first evaluation waits for the worker to start",
    )


if __name__ == "__main__":
    main()
