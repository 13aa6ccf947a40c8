"""Writes what the docs say of code out of the code: job spec, commands, routes, settings.

`python docs/generate.py` rewrites what stands between the marks of each page; a test fails when a
page is behind the code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from evomerge.app.cli import app
from evomerge.app.main import create_app
from evomerge.app.schemas.forest_specs import ForestJobSpec
from evomerge.app.schemas.presets import METHOD_PRESETS
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.settings import Settings

DOCS = Path(__file__).parent
BEGIN = "<!-- generated: do not edit below -->"
END = "<!-- generated: do not edit above -->"

Json = dict[str, Any]


def job_spec() -> str:
    """Every field of the job spec, an object a table, and the presets."""
    presets = (
        f"### Preset `{name}`\n\n```yaml\n{yaml.safe_dump(values, sort_keys=False)}```\n"
        for name, values in METHOD_PRESETS.items()
    )
    return "\n".join([*_objects(MergeJobSpec), *presets])


def forest_job_spec() -> str:
    """Every field of the specs of jobs over forests, an object a table."""
    return "\n".join(_objects(ForestJobSpec))


def _objects(model: type[BaseModel]) -> Iterator[str]:
    schema = model.model_json_schema(mode="validation")
    for name, found in {model.__name__: schema, **schema["$defs"]}.items():
        if "properties" in found:
            yield _object(name, found)


def _object(name: str, schema: Json) -> str:
    required = set(schema.get("required", ()))
    rows = [
        f"| `{field}` | {_type(found)} | {_default(field, found, required)} | {_meaning(found)} |"
        for field, found in schema["properties"].items()
    ]
    about = _one_line(schema.get("description", ""))
    head = ["| field | type | default | |", "|---|---|---|---|"]
    return "\n".join([f"### {name}", "", about, "", *head, *rows, ""])


def _type(schema: Json) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(_type(one) for one in schema[key] if one.get("type") != "null")
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    return " ".join([kind, *_limits(schema)])


def _limits(schema: Json) -> Iterator[str]:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    for key, sign in signs.items():
        if key in schema:
            yield f"{sign} {schema[key]:.12g}"


def _default(field: str, schema: Json, required: set[str]) -> str:
    if field in required:
        return "required"
    value = schema.get("default")
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key} `{part}`" for key, part in value.items())
    return f"`{value!r}`" if isinstance(value, str) else f"`{value}`"


def _meaning(schema: Json) -> str:
    return _one_line(schema.get("description", "")).replace("|", "\\|")


def commands() -> str:
    """Every command with its arguments and options."""
    return "\n".join(_commands(typer.main.get_command(app), "evomerge"))


def _commands(command: Any, path: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from _commands(below, f"{path} {name}")
        return
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option"]
    usage = " ".join([path, *(_argument(argument) for argument in arguments)])
    yield f"### `{usage}`\n\n{_paragraphs(command.help)}\n"
    for param in arguments:
        if getattr(param, "help", None):
            yield f"- `{_argument(param)}`: {_one_line(param.help)}"
    for param in options:
        yield f"- `{_option(param)}`: {_one_line(param.help or '')}"
    yield ""


def routes() -> str:
    """Every route of the HTTP API."""
    document = create_app(Settings()).openapi()
    rows = [
        f"| `{method.upper()}` | `{path}` | {_first_line(operation['description'])} |"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return "\n".join(["| | | |", "|---|---|---|", *rows])


def settings() -> str:
    """Every setting, as the environment variable that sets it."""
    rows = [
        f"| `EVOMERGE_{name.upper()}` | {_setting_default(field)} "
        f"| {_one_line(field.description or '')} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| variable | default | |", "|---|---|---|", *rows])


def _setting_default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return "" if value is None else f"`{value}`"


def _first_line(text: str) -> str:
    return _one_line(text.split("\n\n")[0])


def _argument(param: Any) -> str:
    name = param.metavar or param.name.upper()
    name = f"{name}..." if param.nargs == -1 else name
    return name if param.required else f"[{name}]"


def _option(param: Any) -> str:
    return param.opts[0] if param.is_flag else f"{param.opts[0]} {param.name.upper()}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _paragraphs(text: str) -> str:
    return "\n\n".join(_one_line(part) for part in re.split(r"\n\s*\n", text))


PAGES: dict[Path, Callable[[], str]] = {
    DOCS / "job-spec.md": job_spec,
    DOCS / "forest-jobs.md": forest_job_spec,
    DOCS / "cli.md": commands,
    DOCS / "http-api.md": routes,
    DOCS / "deployment.md": settings,
}


def renewed(page: str, generated: str) -> str:
    """A page with what stands between its marks replaced.

    Raises:
        ValueError: the page does not have both marks, once each.
    """
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{generated.strip()}\n\n{END}{after}"


def main() -> None:
    """Rewrite every page."""
    for page, generate in PAGES.items():
        page.write_text(renewed(page.read_text(), generate()))


if __name__ == "__main__":
    main()
