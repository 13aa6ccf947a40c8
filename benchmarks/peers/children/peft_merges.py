"""PEFT's own merges, `add_weighted_adapter`: a grid, scored on the search rows, the best kept.

PEFT merges and does not search. Its budget goes over its ways of combining in turn, each with the
same weight for every expert, from the grid of the Evo-Merging paper: total weights 0.1 to 1, and
where the way takes one, densities 0.5 to 0.9.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product, zip_longest
from typing import Any

from peft import PeftModel
from shared import Clock, load_base, mean_nll, read_task, seed_all, write_report

# Lambda over N is the weight of each expert, except where signs are elected first.
LAMBDAS = (1.0, 0.7, 0.5, 0.3, 0.1)
DENSITIES = (0.9, 0.7, 0.5)
DENSE = ("linear", "svd", "cat")
SPARSE = ("ties", "dare_linear", "dare_ties", "magnitude_prune")


def grid(experts: int) -> Iterator[dict[str, Any]]:
    """Arguments of `add_weighted_adapter`, one of each way after another."""
    roads = [[{"combination_type": way, "weight": w / experts} for w in LAMBDAS] for way in DENSE]
    for way in SPARSE:
        share = 1 if way.endswith("ties") else experts
        roads.append(
            [
                {"combination_type": way, "weight": weight / share, "density": density}
                for weight, density in product(LAMBDAS, DENSITIES)
            ]
        )
    for turn in zip_longest(*roads):
        yield from (arguments for arguments in turn if arguments)


def main() -> None:
    task = read_task()
    seed_all(task.seed)
    model: Any = None
    for name, folder in task.experts.items():
        if model is None:
            model = PeftModel.from_pretrained(load_base(task.base), str(folder), adapter_name=name)
        else:
            model.load_adapter(str(folder), adapter_name=name)
    model.eval()
    clock = Clock()
    names = list(task.experts)
    best: tuple[float, str, dict[str, Any]] | None = None
    tried = 0
    for arguments in grid(len(names)):
        if tried == task.budget:
            break
        merge = f"merge{tried}"
        weight = arguments["weight"]
        others = {key: value for key, value in arguments.items() if key != "weight"}
        model.add_weighted_adapter(names, [weight] * len(names), merge, **others)
        model.set_adapter(merge)
        loss = mean_nll(model, task.search)
        tried += 1
        if best is None or loss < best[0]:
            if best is not None:
                model.delete_adapter(best[1])
            best = (loss, merge, arguments)
        else:
            model.delete_adapter(merge)
    if best is None:
        raise SystemExit("budget: nothing was tried")
    loss, merge, arguments = best
    seconds = clock.seconds()
    model.save_pretrained(task.folder / "model", selected_adapters=[merge])
    write_report(
        task,
        task.folder / "model" / merge,
        "adapter",
        evaluations=tried,
        search_loss=loss,
        search_seconds=seconds,
        packages=["peft", "torch", "transformers"],
        note=f"the best: {arguments}",
    )


if __name__ == "__main__":
    main()
