"""LoRAHub's package, its own search: NGOpt within 1.5 of zero, L1 0.05, from zero.

The package knows encoder-decoder models alone. Three of its names are set from outside, so that it
can search over a decoder: which class loads the base, how rows become a data set, and the loss,
which it takes as an argument. Its search, its penalty and its composition run as they are.
"""

from __future__ import annotations

from typing import Any

import lorahub.algorithm as lorahub
from shared import Clock, mean_nll, read_task, seed_all, write_report
from transformers import AutoModelForCausalLM


def main() -> None:
    task = read_task()
    seed_all(task.seed)
    lorahub.AutoModelForSeq2SeqLM = AutoModelForCausalLM
    lorahub.load_dataset = lambda *_: {"input": [row.prompt for row in task.search]}
    clocks: list[Clock] = []
    losses: list[float] = []

    def loss(_data: Any, model: Any, _batch: Any) -> float:
        if not clocks:
            clocks.append(Clock())
            model.float()
            model.requires_grad_(False)
        losses.append(mean_nll(model, task.search))
        return losses[-1]

    _, model, _ = lorahub.lorahub_learning(
        lora_module_list=[str(folder) for folder in task.experts.values()],
        example_inputs=[],
        example_outputs=[],
        max_inference_step=task.budget,
        model_name_or_path=str(task.base),
        get_loss=loss,
        seed=task.seed,
    )
    seconds = clocks[0].seconds()
    chosen = mean_nll(model, task.search)
    folder = task.folder / "model"
    model.save_pretrained(folder)
    write_report(
        task,
        folder,
        "checkpoint",
        evaluations=len(losses),
        search_loss=chosen,
        search_seconds=seconds,
        packages=["lorahub", "nevergrad", "peft", "torch", "transformers"],
        note="knows T5 alone: class of the base, rows and loss set from outside",
    )


if __name__ == "__main__":
    main()
