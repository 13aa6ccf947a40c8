"""The compose file and the image: their form, and what they promise each other."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
APPLICATION = ("migrate", "api", "worker")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return loaded


@pytest.fixture(scope="module")
def dockerfile() -> str:
    # Continued lines joined.
    return (ROOT / "Dockerfile").read_text().replace("\\\n", "")


def test_the_compose_file_follows_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*command, COMPOSE], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_migrations_run_once_before_what_needs_them(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert "restart" not in services["migrate"]
    for name in ("api", "worker"):
        waits = {"migrate": {"condition": "service_completed_successfully"}}
        assert services[name]["depends_on"] == waits


def test_workers_scale_by_themselves(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert "--no-worker" in services["api"]["command"]
    # A name or a published port would allow only one of them.
    assert {"container_name", "ports"}.isdisjoint(services["worker"])


def test_the_application_shares_one_database_and_one_data_folder(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name in APPLICATION:
        assert services[name]["environment"] == services["api"]["environment"]
        assert services[name]["volumes"] == services["api"]["volumes"]
    assert "data:/data" in services["api"]["volumes"]
    assert set(compose["volumes"]) == {"data", "postgres"}


def test_only_the_api_is_published_and_only_on_loopback(compose: dict[str, Any]) -> None:
    published = {name for name, service in compose["services"].items() if "ports" in service}
    assert published == {"api"}
    assert compose["services"]["api"]["ports"] == ["${PUBLISH:-127.0.0.1:8000}:8000"]


def test_secrets_have_no_default(compose: dict[str, Any]) -> None:
    text = COMPOSE.read_text()
    for secret in ("POSTGRES_PASSWORD", "EVOMERGE_API_KEYS"):
        uses = re.findall(r"\$\{" + secret + r"(.{0,2})", text)
        assert uses
        assert set(uses) == {":?"}


def test_the_image_does_not_run_as_root_and_is_built_in_stages(dockerfile: str) -> None:
    assert len(re.findall(r"^FROM ", dockerfile, re.MULTILINE)) == 2
    last = dockerfile.rsplit("\nFROM ", 1)[1]
    assert "\nUSER evomerge\n" in last
    assert "pip install" not in last


def test_the_image_asks_readyz_for_its_health(dockerfile: str) -> None:
    assert re.search(r"^HEALTHCHECK .*127\.0\.0\.1:8000/readyz", dockerfile, re.MULTILINE)


def test_what_the_image_is_built_from_exists_and_is_let_in(dockerfile: str) -> None:
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied: set[str] = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile, re.MULTILINE):
        copied |= set(line.split()[:-1])
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def test_one_torch_everywhere(dockerfile: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = [
        need for need in project["optional-dependencies"]["local"] if need.startswith("torch")
    ]
    for text in (dockerfile, (ROOT / "Makefile").read_text()):
        assert re.findall(r"torch==[\w.]+", text) == [wanted]
