"""Worked examples of the bodies of jobs over forests, as /docs shows them."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

TRAIN_SEED_SPEC: Json = {
    "type": "train_seed",
    "name": "manuals-seed",
    "corpora": [
        {"domain": "python", "path": "/corpora/python"},
        {"domain": "licences", "path": "/corpora/licences.jsonl"},
    ],
    "architecture": {"vocabulary": 4096, "hidden": 256, "layers": 6},
    "recipe": {"tokens": 20000000, "learning_rate": 0.001},
    "budget": {"seconds": 3600},
    "forest": "manuals",
}
BRANCH_TRAIN_SPEC: Json = {
    "type": "branch_train",
    "forest": "manuals",
    "corpus": {"domain": "perl", "path": "/corpora/perl"},
    "start": "auto",
    "recipe": {"tokens": 5000000},
}
CLUSTER_SPEC: Json = {
    "type": "cluster",
    "forest": "manuals",
    "corpora": ["/corpora/web", "/corpora/books.jsonl"],
    "clusters": 8,
}
AVERAGE_SPEC: Json = {
    "type": "average",
    "forest": "manuals",
    "weights": {"python": 0.75, "perl": 0.25},
    "serve_as": "manuals-average",
}
EVALUATE_SPEC: Json = {
    "type": "evaluate",
    "forest": "manuals",
    "corpora": [
        {"domain": "python", "path": "/corpora/python"},
        {"domain": "quotations", "path": "/corpora/quotations.txt"},
    ],
    "top_k": [1, 2],
}

FOREST_JOB_ID = "fj_7c1a9e02d4b85f36a1b2c3d4"
_HASHES = [letter * 64 for letter in "abc"]


def forest_job(spec: Json) -> Json:
    """A running job of a resolved spec."""
    return {
        "id": FOREST_JOB_ID,
        "object": "forest_job",
        "type": spec["type"],
        "name": spec["name"],
        "status": "running",
        "spec": spec,
        "inputs": {
            "forest_id": "forest_3d9b17e2c4a85f60718293a4",
            "forest": "manuals",
            "seed_hash": _HASHES[0],
            "elms": [{"name": "python", "domain": "python", "content_hash": _HASHES[1]}],
            "corpora": [{"domain": "perl", "content_hash": _HASHES[2], "bytes": 20480123}],
        },
        "progress": {
            "stage": "training",
            "step": 620,
            "planned_steps": 1220,
            "tokens": 2539520,
            "planned_tokens": 4997120,
            "loss": 3.118,
            "learning_rate": 0.00061,
            "tokens_per_second": 8121.0,
            "eta_seconds": 302.6,
        },
        "error": None,
        "metadata": {},
        "attempts": 1,
        "seconds_used": 330.2,
        "created_at": 1764000010.0,
        "started_at": 1764000010.4,
        "finished_at": None,
    }


FOREST_EVENT: Json = {
    "id": "2042",
    "object": "forest_job.event",
    "created_at": 1764000340.5,
    "level": "info",
    "type": "metrics",
    "message": "step 620 of 1220: loss 3.118",
    "data": {"step": 620, "loss": 3.118, "tokens": 2539520, "tokens_per_second": 8121.0},
}
FOREST_ARTIFACT: Json = {
    "name": "model.safetensors",
    "bytes": 12849152,
    "sha256": _HASHES[0],
    "object": "forest_job.artifact",
}
FOREST_ESTIMATE: Json = {
    "object": "forest_job.estimate",
    "type": "branch_train",
    "parameters": 3212288,
    "steps": 1220,
    "tokens": 4997120,
    "tokens_by": "recipe",
    "disk_bytes": 12849152,
    "scratch_bytes": 147965136,
    "seconds": 615.3,
    "seconds_reason": None,
}
FOREST_RESULT: Json = {
    "object": "forest_job.result",
    "forest_job_id": FOREST_JOB_ID,
    "type": "branch_train",
    "ended_by": None,
    "checkpoint": {
        "content_hash": _HASHES[0],
        "lineage": {
            "seed_hash": _HASHES[1],
            "domain": "perl",
            "parents": [{"content_hash": _HASHES[1], "weight": 1.0}],
            "tokens": 24997120,
            "own_tokens": 4997120,
            "corpus_hash": _HASHES[2],
            "optimizer": "reset",
        },
    },
    "training": {
        "steps": 1220,
        "planned_steps": 1220,
        "tokens": 24997120,
        "own_tokens": 4997120,
        "domain_tokens": {"perl": 4997120},
        "train_loss": 2.771,
        "dev_losses": {"perl": 2.802},
        "perplexity": 16.48,
        "parents": {"python": 1.0},
        "posterior": {"python": 0.97, "licences": 0.03},
        "start_losses": {"python": 4.51, "average": 4.55},
    },
    "average": None,
    "clustering": None,
    "evaluation": None,
    "forest_id": "forest_3d9b17e2c4a85f60718293a4",
    "elm_id": "elm_f0e1d2c3b4a5968778695a4b",
    "seconds": 660.9,
    "versions": {"evomerge": "0.1.0", "python": "3.11.7", "torch": "2.13.0"},
    "artifacts": [{key: FOREST_ARTIFACT[key] for key in ("name", "bytes", "sha256")}],
}
