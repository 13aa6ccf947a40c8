"""Worked examples of the larger bodies, as /docs shows them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

MERGE_JOB_SPECS: list[Json] = [
    {
        "name": "film-from-relatives",
        "pool": "ie-experts",
        "objective": {"datasets": [{"dataset": "films"}], "held_out": 0.5},
        "method": {"name": "evo-merging", "preset": "default"},
        "budget": {"evaluations": 1200, "seconds": 3600},
        "seed": 7,
        "metadata": {"team": "search"},
    },
    {
        "experts": ["ner-movies", "re-news"],
        "composition": "factor",
        "objective": {
            "datasets": [{"dataset": "films", "weight": 2.0}, {"dataset": "news"}],
            "metric": "cross_entropy",
            "report": ["item_f1"],
        },
        "method": {"name": "cma", "population": 16, "scaling": {"evaluations": 320}},
    },
]
# A pool of API experts, merged by their answers.
OUTPUT_JOB_SPEC: Json = {
    "name": "film-answers",
    "pool": "film-apis",
    "space": "output",
    "objective": {"datasets": [{"dataset": "films"}], "metric": "item_f1"},
    "budget": {"requests": 3000, "usd": 5.0, "seconds": 1800},
    "serve_as": "film-merged",
}

_HASHES = [letter * 64 for letter in "abc"]
_INPUTS: Json = {
    "base": "smollm2-135m",
    "base_hash": _HASHES[2],
    "pool_id": "pool_77d0f3b2c9e84a15b6d7e8f9",
    "experts": [
        {"id": "ex_5f0c2a9d81b34e77a6c0d1e2", "name": "ner-movies", "content_hash": _HASHES[0]},
        {"id": "ex_c1d2e3f4a5b60718293a4b5c", "name": "re-news", "content_hash": _HASHES[1]},
    ],
    "datasets": [
        {
            "id": "ds_2b8e6c40f1d94c3fa5b6c7d8",
            "name": "films",
            "content_hash": _HASHES[2],
            "rows": 300,
            "weight": 1.0,
        }
    ],
}
JOB_ID = "mj_0b54a3c2d1e0f9a8b7c6d5e4"


def merge_job(spec: Json) -> Json:
    """A running job of a resolved spec."""
    return {
        "id": JOB_ID,
        "object": "merge_job",
        "name": spec["name"],
        "status": "running",
        "spec": spec,
        "inputs": _INPUTS,
        "progress": {
            "stage": "scaling",
            "generation": 12,
            "evaluations": 98,
            "planned_evaluations": 402,
            "best_loss": 1.984,
            "tokens": 402112,
            "tokens_per_second": 611.4,
            "eta_seconds": 1980.5,
        },
        "error": None,
        "metadata": {"team": "search"},
        "attempts": 1,
        "seconds_used": 660.2,
        "created_at": 1764000010.0,
        "started_at": 1764000010.4,
        "finished_at": None,
    }


EVENT: Json = {
    "id": "1042",
    "object": "merge_job.event",
    "created_at": 1764000670.5,
    "level": "info",
    "type": "metrics",
    "message": "scaling generation 12: best loss 1.984",
    "data": {"stage": "scaling", "generation": 12, "evaluations": 98, "best_loss": 1.984},
}
EVENT_STREAM = (
    ": events follow\n\n"
    'id: 1042\nevent: metrics\ndata: {"id":"1042","object":"merge_job.event",'
    '"created_at":1764000670.5,"level":"info","type":"metrics",'
    '"message":"scaling generation 12: best loss 1.984","data":{"best_loss":1.984}}\n\n'
)
EVALUATION: Json = {
    "id": "1-12-3",
    "object": "merge_job.evaluation",
    "stage": "scaling",
    "generation": 12,
    "index": 3,
    "loss": 1.984,
    "alpha": [[1.0, 1.0]],
    "beta": [[0.61, -0.2]],
    "tokens": 4103,
    "seconds": 6.7,
    "created_at": 1764000670.5,
}
ARTIFACT: Json = {
    "name": "adapter_model.safetensors",
    "bytes": 9878144,
    "sha256": _HASHES[0],
    "object": "merge_job.artifact",
}
ESTIMATE: Json = {
    "object": "merge_job.estimate",
    "experts": 10,
    "evaluations": 410,
    "search_examples": 150,
    "held_out_examples": 150,
    "tokens": 2870110,
    "tokens_by": "tokenizer",
    "answers": 0,
    "answers_known": 0,
    "requests": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "usd": 0.0,
    "seconds": None,
    "seconds_reason": "no job over base 'smollm2-135m' has been scored here yet",
}


def _contender(name: str, loss: float, **more: Any) -> Json:
    interval = {"low": loss - 0.12, "high": loss + 0.13, "level": 0.95}
    return {
        "name": name,
        "expert": None,
        "loss": loss,
        "score": None,
        "interval": interval,
        "dataset_losses": {"films": loss},
        "difference": None,
        "difference_interval": None,
        "p_value": None,
        **more,
    }


def _beaten(name: str, loss: float, winner: float, **more: Any) -> Json:
    by = loss - winner
    return _contender(
        name,
        loss,
        difference=by,
        difference_interval={"low": by - 0.08, "high": by + 0.08, "level": 0.95},
        p_value=0.0004,
        **more,
    )


RESULT: Json = {
    "object": "merge_job.result",
    "merge_job_id": JOB_ID,
    "winner": {
        "stage": "scaling",
        "generation": 31,
        "index": 2,
        "search_loss": 1.941,
        "alpha": {"ner-movies": [1.0], "re-news": [0.82]},
        "beta": {"ner-movies": [0.61], "re-news": [-0.2]},
    },
    "held_out": [
        {
            "metric": "cross_entropy",
            "examples": 150,
            "contenders": [
                _contender("winner", 1.79),
                _beaten("base", 3.23, 1.79),
                _beaten("best_expert", 1.92, 1.79, expert="ner-movies"),
                _beaten("uniform", 2.35, 1.79),
            ],
        }
    ],
    "generations": [
        {"stage": "scaling", "generation": 0, "evaluations": 8, "best": 2.07, "mean": 2.44}
    ],
    "search_examples": 150,
    "held_out_examples": 150,
    "ended_by": None,
    "usage": {
        "search": {"evaluations": 402, "tokens": 1650012, "seconds": 2698.0},
        "held_out": {"evaluations": 4, "tokens": 16410, "seconds": 27.1},
    },
    "seconds": 2790.3,
    "seed": 7,
    "versions": {"evomerge": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
    "hashes": {
        "base": _HASHES[2],
        "experts": {"ner-movies": _HASHES[0], "re-news": _HASHES[1]},
        "datasets": {"films": _HASHES[2]},
    },
    "artifacts": [{key: value for key, value in ARTIFACT.items() if key != "object"}],
}
