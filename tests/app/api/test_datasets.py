from __future__ import annotations

import errno
import io
import json
from hashlib import sha256
from pathlib import Path

import httpx
import pyarrow
import pyarrow.parquet
import pytest
from tests.app.api.client import Api, created, error

from evomerge.app.services import datasets
from evomerge.app.settings import Settings
from evomerge.evaluation.example import Example

ROWS = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(4)]


def jsonl(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet(rows: list[dict[str, object]]) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), out)
    return out.getvalue()


async def upload(api: Api, file_name: str, content: bytes, /, **fields: str) -> httpx.Response:
    return await api.http.post("/v1/datasets", files={"file": (file_name, content)}, data=fields)


async def test_a_file_below_a_root(api: Api, settings: Settings) -> None:
    dataset = await api.dataset()
    assert dataset["id"].startswith("ds_")
    assert (dataset["kind"], dataset["rows"]) == ("completion", 6)
    assert dataset["info"]["prompts"] == 6
    kept = settings.data_dir / "datasets" / f"{dataset['content_hash']}.jsonl"
    assert sha256(kept.read_bytes()).hexdigest() == dataset["content_hash"]
    for key in ("rows", dataset["id"]):
        assert (await api.get(f"/v1/datasets/{key}")).json() == dataset
    assert (await api.get("/v1/datasets")).json()["data"] == [dataset]
    assert str(settings.data_dir) not in json.dumps(dataset)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", jsonl(ROWS)),
        ("rows.json", json.dumps(ROWS).encode()),
        ("rows.csv", b"prompt,completion\np0,c0\np1,c1\np2,c2\np3,c3\n"),
        ("rows.parquet", parquet(ROWS)),
    ],
)
async def test_every_format_of_the_same_rows_is_the_same_dataset(
    api: Api, name: str, content: bytes
) -> None:
    first = created(await upload(api, "any.jsonl", jsonl(ROWS), name="same"))
    again = await upload(api, name, content, name="same")
    assert (again.status_code, again.json()) == (200, first)


async def test_name_and_format_may_be_given(api: Api) -> None:
    dataset = created(await upload(api, "file.txt", jsonl(ROWS), name="x", format="jsonl"))
    assert (dataset["name"], dataset["info"]["format"]) == ("x", "jsonl")
    assert created(await upload(api, "films.jsonl", jsonl(ROWS)))["name"] == "films"
    error(await upload(api, "file.txt", jsonl(ROWS), name="y"), 422, "invalid_value", "file")
    response = await upload(api, "file.txt", jsonl(ROWS), name="y", format="xml")
    assert "'xml'" in error(response, 422, "invalid_value", "format")


async def test_other_rows_under_a_taken_name(api: Api) -> None:
    created(await upload(api, "films.jsonl", jsonl(ROWS)))
    response = await upload(api, "films.jsonl", jsonl(ROWS[:2]))
    assert "'films'" in error(response, 409, "name_taken", "name")


async def test_bad_rows_are_named_by_number_and_field(api: Api, settings: Settings) -> None:
    rows = [*ROWS, {"prompt": "x"}, {"prompt": "", "completion": "y"}]
    response = await upload(api, "bad.jsonl", jsonl(rows))
    message = error(response, 422, "invalid_dataset", "file")
    assert "row 5: completion: missing" in message
    details = response.json()["error"]["details"]
    assert [detail["message"].partition(":")[0] for detail in details] == ["row 5", "row 6"]
    assert list((settings.data_dir / "datasets").iterdir()) == []


async def test_an_empty_dataset(api: Api) -> None:
    assert "no rows" in error(await upload(api, "e.jsonl", b""), 422, "invalid_dataset", "file")


async def test_too_many_rows(api: Api, settings: Settings) -> None:
    settings.max_dataset_rows = 3
    message = error(await upload(api, "m.jsonl", jsonl(ROWS)), 422, "invalid_dataset", "file")
    assert "limit of 3" in message


async def test_paths(api: Api, root: Path, tmp_path: Path, settings: Settings) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.write_bytes(jsonl(ROWS))
    (root / "link.jsonl").symlink_to(outside)
    (root / "large.jsonl").write_bytes(b" " * (settings.max_upload_bytes + 1))
    for path, code, word in (
        (outside, "path_outside_roots", str(outside)),
        (root / "link.jsonl", "path_outside_roots", "link.jsonl"),
        (root / "none.jsonl", "invalid_value", "does not exist"),
        (root, "invalid_value", "not a file"),
        (root / "large.jsonl", "invalid_value", "limit"),
    ):
        response = await api.post("/v1/datasets", {"path": str(path), "name": "x"})
        assert word in error(response, 422, code, "path")


async def test_preview(api: Api) -> None:
    await upload(api, "x.jsonl", jsonl([*ROWS, {"prompt": "long", "completion": "y" * 5000}]))
    preview = (await api.get("/v1/datasets/x/preview", limit=2)).json()
    assert preview["rows"] == ROWS[:2]
    assert preview["total"] == 5
    last = (await api.get("/v1/datasets/x/preview")).json()["rows"][-1]
    assert last["completion"] == "y" * 2000 + "…"
    error(await api.get("/v1/datasets/none/preview"), 404, "not_found")


async def test_delete_keeps_the_rows_for_jobs(api: Api, settings: Settings) -> None:
    await api.job()
    dataset = api.made["dataset"]
    gone = (await api.http.delete("/v1/datasets/rows")).json()
    assert gone == {"id": dataset["id"], "object": "dataset", "deleted": True}
    error(await api.get("/v1/datasets/rows"), 404, "not_found")
    assert (settings.data_dir / "datasets" / f"{dataset['content_hash']}.jsonl").exists()


async def test_a_full_disk_leaves_nothing(
    api: Api, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(example: Example) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(datasets, "to_line", full)
    response = await upload(api, "x.jsonl", jsonl(ROWS))
    assert "disk is full" in error(response, 507, "disk_full")
    assert list((settings.data_dir / "datasets").iterdir()) == []
