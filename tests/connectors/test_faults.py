"""What refusals mean, in every provider's words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.connectors.errors import (
    AskError,
    CredentialError,
    OverloadedError,
    ProviderDownError,
    QuestionRefusedError,
    TooLongError,
    UnknownModelError,
)
from evomerge.connectors.faults import Told, inside, told
from evomerge.connectors.parameters import refused_parameter, without


@pytest.mark.parametrize(
    ("status", "body", "message", "param", "code"),
    [
        (
            400,
            {"error": {"message": "no", "type": "t", "param": "n", "code": "c"}},
            "no",
            "n",
            "c",
        ),
        (400, {"error": {"message": "no", "type": "t", "param": None}}, "no", None, "t"),
        (400, {"object": "error", "message": "no", "param": "n", "code": 400}, "no", "n", None),
        (422, {"error": "no", "error_type": "validation"}, "no", None, "validation"),
        (
            529,
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "Overloaded",
            None,
            "overloaded_error",
        ),
        (404, {"detail": "Not Found"}, "Not Found", None, None),
        (
            422,
            {"detail": [{"loc": ["body", "seed"], "msg": "not permitted", "type": "extra"}]},
            "body.seed: not permitted",
            "seed",
            "extra",
        ),
        (500, {"odd": 1}, '{"odd": 1}', None, None),
        (500, {"error": {"message": ""}}, '{"message": ""}', None, None),
    ],
)
def test_every_envelope(
    status: int, body: Any, message: str, param: str | None, code: str | None
) -> None:
    assert told(status, json.dumps(body).encode()) == Told(status, message, param, code)


def test_what_is_no_json_is_shown_shortened() -> None:
    assert told(502, b"<html>\n Bad   gateway</html>").message == "<html> Bad gateway</html>"
    assert len(told(502, b"x" * 9999).message) == 500
    assert told(502, b"").message == "status 502 without a word"


@pytest.mark.parametrize(
    ("found", "kind", "transient"),
    [
        (Told(402, "pay"), CredentialError, False),
        (Told(429, "quota", code="insufficient_quota"), CredentialError, False),
        (Told(429, "slow down"), OverloadedError, True),
        (Told(424, "generation failed"), ProviderDownError, True),
        (Told(501, "not implemented"), ProviderDownError, True),
        (Told(507, "full"), ProviderDownError, False),
        (Told(404, "gone"), UnknownModelError, False),
        (Told(418, "teapot"), QuestionRefusedError, False),
        (
            Told(400, "This model's maximum context length is 8192 tokens."),
            TooLongError,
            False,
        ),
        (Told(400, "no", code="context_length_exceeded"), TooLongError, False),
        (Told(400, "the request exceeds the available context size"), TooLongError, False),
        (
            Told(422, "`inputs` tokens + `max_new_tokens` must be <= 2048"),
            TooLongError,
            False,
        ),
    ],
)
def test_kinds(found: Told, kind: type[AskError], transient: bool) -> None:
    assert found.kind is kind
    assert found.transient is transient


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"message": "m", "code": 429}}, 429),
        ({"error": {"type": "overloaded_error", "message": "m"}}, 529),
        ({"error": "m"}, 200),
        ({"choices": [{"error": {"code": 502, "message": "m"}}]}, 502),
    ],
)
def test_errors_inside_a_200(body: Any, status: int) -> None:
    found = inside(body)
    assert found is not None
    assert (found.status, found.message) == (status, "m")


@pytest.mark.parametrize("body", [{"choices": []}, {"error": None}, [], "x", {"choices": None}])
def test_answers_without_an_error_have_none(body: Any) -> None:
    assert inside(body) is None


@given(st.binary(max_size=200), st.integers(100, 599))
def test_no_body_breaks_the_reading(body: bytes, status: int) -> None:
    assert issubclass(told(status, body).kind, AskError)


BODY = dict.fromkeys(("temperature", "seed", "max_tokens", "top_p", "stop", "logprobs"), 1)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "max_tokens",
        ),
        (
            "Unsupported value: 'temperature' does not support 0.0 with this model. Only the "
            "default (1) value is supported.",
            "temperature",
        ),
        ("Unrecognized request argument supplied: seed", "seed"),
        ("Unknown parameter: 'seed'.", "seed"),
        ("Failed to deserialize: unknown field `seed`, expected one of `inputs`", "seed"),
        ("body.seed: Extra inputs are not permitted", "seed"),
        ("seed: Extra inputs are not permitted", "seed"),
        ("`temperature` is deprecated for this model.", "temperature"),
        (
            "`top_p` cannot both be specified for this model. Please use only one.",
            "top_p",
        ),
        ("logprobs is not supported by this model", "logprobs"),
        ("logprobs are not yet supported", "logprobs"),
        ("This model does not support the seed parameter", "seed"),
        ("temperature must be between 0 and 2", None),
        ("Unknown parameter: 'colour'.", None),
        ("max_tokens is too large: 9999", None),
    ],
)
def test_refused_parameters_in_many_words(words: str, name: str | None) -> None:
    assert refused_parameter(QuestionRefusedError("m", f"400: {words}"), BODY) == name


@pytest.mark.parametrize(
    ("words", "param", "name"),
    [
        ("The model o9 does not work so: not supported.", "seed", "seed"),
        ("Must be between 0 and 2.", "temperature", None),
        ("Not supported.", "colour", None),
        ("Not supported.", None, None),
    ],
)
def test_a_parameter_named_beside_the_text(words: str, param: str | None, name: str | None) -> None:
    assert refused_parameter(QuestionRefusedError("m", words, param=param), BODY) == name


def test_the_limit_goes_by_its_other_name() -> None:
    assert without({"a": 1, "max_tokens": 5}, {"max_tokens"}) == {
        "a": 1,
        "max_completion_tokens": 5,
    }
    assert without({"max_completion_tokens": 5}, {"max_completion_tokens"}) == {"max_tokens": 5}
    assert without({"max_tokens": 5}, {"max_tokens", "max_completion_tokens"}) == {}
    assert without({"seed": 1}, {"seed"}) == {}
