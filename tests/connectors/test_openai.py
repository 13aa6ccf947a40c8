"""OpenAI's wire format: what is asked, and the many shapes of what comes back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.connectors import connectors, endpoint
from tests.support.dialects import FLOOR, OpenAI, distribution, tokens_of
from tests.support.provider import provider

from evomerge.connectors.errors import QuestionRefusedError
from evomerge.connectors.expert import Capabilities
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.openai import body, parts
from evomerge.connectors.openai_answer import Asked, read_answer
from evomerge.connectors.question import Answer, Endpoint, Message, Question, Sampling

RECORDED = Path(__file__).parent / "recorded"
WHERE = Endpoint("openai", "https://api.example.com/v1", "m")
CHAT = Question(WHERE, (Message("user", "Where?"),))
TEXT = Question(WHERE, prompts=("The river",))
PLAIN = Capabilities()


def read(question: Question, said: Any, capabilities: Capabilities = PLAIN) -> Answer:
    return read_answer(Asked.of(question, capabilities), said)


def choice(message: Any, finish: str | None = "stop", **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish, **more}]}


def text(text: str | None, logprobs: Any = None, **more: Any) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "text": text, "logprobs": logprobs, "finish_reason": "length"}],
        **more,
    }


def test_a_chat_body_names_what_was_asked_and_nothing_more() -> None:
    assert body(CHAT, PLAIN) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Where?"}],
        "max_tokens": 64,
        "temperature": 0.0,
    }
    asked = replace(
        CHAT,
        sampling=Sampling(8, 0.7, 0.9, ("\n",), 5),
        alternatives=3,
        samples=2,
        sample=4,
        extra='{"lora":[{"id":0,"scale":-0.5}]}',
    )
    assert body(asked, Capabilities(token_limit="max_completion_tokens")) == {
        "model": "m",
        "messages": [{"role": "user", "content": "Where?"}],
        "logprobs": True,
        "top_logprobs": 3,
        "max_completion_tokens": 8,
        "temperature": 0.7,
        "top_p": 0.9,
        "stop": ["\n"],
        "seed": 9,
        "n": 2,
        "lora": [{"id": 0, "scale": -0.5}],
    }
    assert "top_logprobs" not in body(replace(CHAT, alternatives=0), PLAIN)


def test_a_completions_body_echoes_and_counts_alternatives_from_one() -> None:
    asked = replace(TEXT, echo=True, sampling=Sampling(0))
    assert body(asked, PLAIN) == {
        "model": "m",
        "prompt": "The river",
        "logprobs": 1,
        "echo": True,
        "max_tokens": 1,
        "temperature": 0.0,
    }
    assert body(asked, Capabilities(zero_tokens=True))["max_tokens"] == 0
    assert body(replace(TEXT, prompts=("a", "b")), PLAIN)["prompt"] == ["a", "b"]


def test_what_the_server_cannot_take_at_once_is_parted_in_order() -> None:
    both = replace(TEXT, prompts=("a", "b"), samples=2, sample=3)
    assert parts(both, Capabilities(batches=True, samples=True)) == [both]
    found = [(part.prompts, part.samples, part.sample) for part in parts(both, PLAIN)]
    assert found == [(("a",), 1, 3), (("a",), 1, 4), (("b",), 1, 3), (("b",), 1, 4)]
    assert parts(both, Capabilities(batches=True)) == parts(both, PLAIN)
    batch = replace(both, samples=1)
    assert parts(batch, Capabilities(batches=True)) == [batch]
    assert [part.samples for part in parts(both, Capabilities(samples=True))] == [2, 2]


@pytest.mark.parametrize(
    ("message", "finish", "said", "ended"),
    [
        ({"content": "hi"}, "stop", "hi", "stop"),
        ({"content": None}, "length", "", "length"),
        ({"content": "hi", "reasoning_content": "hm"}, "eos", "hi", "stop"),
        ({"content": [{"type": "text", "text": "h"}, {"text": "i"}]}, "stop", "hi", "stop"),
        ({"content": "hi"}, None, "hi", "other"),
        ({"content": None, "refusal": "I will not."}, "stop", "I will not.", "content_filter"),
        ({"content": None, "tool_calls": []}, "tool_calls", "", "other"),
        ({"content": "h"}, "content_filter", "h", "content_filter"),
    ],
)
def test_every_shape_of_a_message(message: Any, finish: str | None, said: str, ended: str) -> None:
    answer = read(CHAT, choice(message, finish))
    assert (answer.completions[0].text, answer.completions[0].finish) == (said, ended)


def test_usage_that_is_missing_is_estimated() -> None:
    known = Capabilities(bytes_per_token=2.0, overhead_tokens=10)
    answer = read(CHAT, choice({"content": "four"}), known)
    assert (answer.input_tokens, answer.output_tokens) == (13, 2)
    answer = read(CHAT, choice({"content": "four"}) | {"usage": {"prompt_tokens": 5}}, known)
    assert (answer.input_tokens, answer.output_tokens) == (5, 2)
    assert read(CHAT, choice({"content": ""}) | {"usage": None}, known).input_tokens == 13


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"choices": None},
        {"choices": [{"index": 0}]},
        {"choices": ["hi"]},
        choice({"content": 7}),
        {"choices": [*choice({"content": "a"})["choices"]] * 2},
        choice({"content": "a"}, logprobs={"content": [{"token": "a", "logprob": "-1"}]}),
        choice({"content": "a"}, logprobs={"content": [{"token": None, "logprob": -1}]}),
    ],
)
def test_what_is_no_answer_is_refused(said: Any) -> None:
    with pytest.raises(BadAnswerError):
        read(replace(CHAT, alternatives=1), said)


def test_chat_logprobs_keep_the_floor_and_drop_what_has_no_number() -> None:
    content = [
        {
            "token": "A",
            "logprob": -0.1,
            "bytes": None,
            "top_logprobs": [
                {"token": "B", "logprob": -9999.0},
                {"token": "A", "logprob": -0.1},
                {"token": "C", "logprob": None},
            ],
        },
        {"token": "!", "logprob": None},
        {"token": "?", "logprob": float("-inf")},
        {"token": ".", "logprob": float("nan")},
    ]
    said = choice({"content": "A!?."}, logprobs={"content": content})
    tokens = read(replace(CHAT, alternatives=5), said).completions[0].tokens
    assert tokens[0].alternatives == (("A", -0.1), ("B", FLOOR))
    assert [token.logprob for token in tokens] == [-0.1, None, FLOOR, None]
    json.dumps(read(replace(CHAT, alternatives=5), said).to_json(), allow_nan=False)
    assert len(read(replace(CHAT, alternatives=1), said).completions[0].tokens[0].alternatives) == 1
    assert read(CHAT, said).completions[0].tokens == ()


def test_batches_are_ordered_by_index_and_kept_where_it_is_nonsense() -> None:
    two = replace(TEXT, prompts=("a", "b"))
    choices = [{"index": 1, "text": "second"}, {"index": 0, "text": "first"}]
    assert [one.text for one in read(two, {"choices": choices}).completions] == ["first", "second"]
    for odd in ({"index": 0}, {}):
        same = [{"text": "first", **odd}, {"text": "second", **odd}]
        found = [one.text for one in read(two, {"choices": same}).completions]
        assert found == ["first", "second"]


def test_an_echo_is_parted_by_its_tokens_whatever_stands_before_the_prompt() -> None:
    logprobs = {
        "tokens": ["<s>", "The", " river", " is", "</s>"],
        "token_logprobs": [None, -2.0, -9999.0, -0.5, -0.1],
        "top_logprobs": [None, {"A": -1.0}, {" sea": -0.2}, {" is": -0.5}, None],
        "text_offset": [0, 3, 6, 12, 15],
    }
    asked = replace(TEXT, echo=True, alternatives=1, sampling=Sampling(2))
    found = read(asked, text("The river is", logprobs)).completions[0]
    assert found.text == " is"
    assert [(token.text, token.logprob) for token in found.prompt_tokens] == [
        ("<s>", None),
        ("The", -2.0),
        (" river", -9999.0),
    ]
    assert [token.text for token in found.tokens] == [" is", "</s>"]
    assert found.prompt_tokens[1].alternatives == (("A", -1.0),)


def test_the_one_token_that_had_to_be_asked_for_is_dropped() -> None:
    logprobs = {"tokens": ["The", " river", " is"], "token_logprobs": [None, -2.0, -0.5]}
    asked = replace(TEXT, echo=True, sampling=Sampling(0))
    found = read(asked, text("The river is", logprobs)).completions[0]
    assert (found.text, found.tokens) == ("", ())
    assert [token.text for token in found.prompt_tokens] == ["The", " river"]
    obeyed = {"tokens": ["The", " river"], "token_logprobs": [None, -2.0]}
    zero = read(asked, text("The river", obeyed), Capabilities(zero_tokens=True)).completions[0]
    assert zero.prompt_tokens == found.prompt_tokens


@pytest.mark.parametrize(
    "said",
    [
        text(" is", {"tokens": [" is"], "token_logprobs": [-1.0]}),
        text("The river is"),
        text("The river is", {"tokens": ["Th", "\\xc3"], "token_logprobs": [None, -1.0]}),
        text("The river is", {"tokens": ["The"], "token_logprobs": [None, -1.0]}),
    ],
)
def test_an_echo_that_is_none_is_refused(said: Any) -> None:
    with pytest.raises(BadAnswerError):
        read(replace(TEXT, echo=True), said)


def test_prompt_logprobs_of_vllm() -> None:
    positions = [
        None,
        {
            "11": {"logprob": -3.0, "rank": 40, "decoded_token": " river"},
            "12": {"logprob": -0.3, "rank": 1, "decoded_token": " sea"},
        },
    ]
    said = text(" is")
    said["choices"][0]["prompt_logprobs"] = positions
    asked = replace(TEXT, alternatives=2, extra='{"prompt_logprobs":2}')
    found = read(asked, said).completions[0].prompt_tokens
    assert [(token.text, token.logprob) for token in found] == [("", None), (" river", -3.0)]
    assert found[1].alternatives == ((" sea", -0.3), (" river", -3.0))


def test_a_stop_that_the_server_gives_back_is_cut() -> None:
    logprobs = {"tokens": [" is", "\n", " The"], "token_logprobs": [-1.0, -1.0, -1.0]}
    asked = replace(TEXT, alternatives=0, sampling=Sampling(3, stop=("\n",)))
    found = read(asked, text(" is\n The", logprobs)).completions[0]
    assert (found.text, found.finish, len(found.tokens)) == (" is", "stop", 1)


@pytest.mark.parametrize("name", ["chat", "completions"])
def test_recorded_answers_of_a_real_server_are_read(name: str) -> None:
    calls = json.loads((RECORDED / f"llama_cpp_python_{name}.json").read_text())["calls"]
    last = calls[-1]
    asked = replace(CHAT if name == "chat" else TEXT, sampling=Sampling(1), alternatives=2)
    if name == "completions":
        asked = replace(asked, prompts=(last["request"]["prompt"],), echo=True)
    found = read(asked, last["response"]).completions[0]
    if name == "chat":
        assert found.tokens[0].text == found.text == "Water"
        assert len(found.tokens[0].alternatives) == 2
    else:
        # Shifted by one: " capital" is scored where " of" stands.
        assert [token.text for token in found.prompt_tokens][:2] == ["The", " capital"]
        assert found.prompt_tokens[1].alternatives[0][0] == " of"
        assert found.text == " Paris"


@pytest.mark.parametrize("shaped", [False, True])
@pytest.mark.parametrize("samples", [False, True])
async def test_batches_and_samples_come_in_order(shaped: bool, samples: bool) -> None:
    prompts = ("The river runs", "A town by the sea")
    server_of = OpenAI(samples=samples, chat_shaped=shaped)
    async with provider(server_of) as server, connectors() as asked:
        question = Question(
            endpoint("openai", server.base_url),
            prompts=prompts,
            sampling=Sampling(1),
            alternatives=2,
            samples=2,
        )
        answer = await asked.ask(question, Capabilities(batches=True, samples=samples))
        assert answer.requests == (1 if samples else 4)
    tops = [distribution(tokens_of(prompt)[-1]) for prompt in prompts for _ in range(2)]
    assert [one.text for one in answer.completions] == [next(iter(top)) for top in tops]
    expected = [tuple(list(top.items())[:2]) for top in tops]
    assert [one.tokens[0].alternatives for one in answer.completions] == expected


async def test_max_tokens_goes_by_its_other_name_where_it_is_refused() -> None:
    words = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead."
    )
    async with provider(OpenAI(refused={"max_tokens": words})) as server, connectors() as asked:
        answer = await asked.ask(
            replace(CHAT, endpoint=endpoint("openai", server.base_url), sampling=Sampling(3))
        )
    assert (answer.requests, answer.output_tokens) == (2, 3)
    assert server.requests[-1].body["max_completion_tokens"] == 3


async def test_a_parameter_that_is_the_question_is_not_left_out() -> None:
    words = "Unsupported parameter: 'logprobs' is not supported with this model."
    async with provider(OpenAI(refused={"logprobs": words})) as server, connectors() as asked:
        where = endpoint("openai", server.base_url)
        with pytest.raises(QuestionRefusedError) as caught:
            await asked.ask(replace(CHAT, endpoint=where, alternatives=1))
    assert (caught.value.param, caught.value.requests) == ("logprobs", 1)


async def test_an_echo_of_a_chat_is_refused_unasked() -> None:
    async with provider(OpenAI()) as server, connectors() as asked:
        where = endpoint("openai", server.base_url)
        with pytest.raises(QuestionRefusedError) as caught:
            await asked.ask(replace(CHAT, endpoint=where, echo=True))
        assert server.requests == []
    assert (caught.value.param, caught.value.requests) == ("echo", 0)


async def test_both_names_of_the_limit_refused_is_a_refusal() -> None:
    refused = {name: f"Unknown parameter: '{name}'" for name in ("max_tokens",)}
    refused["max_completion_tokens"] = "Unknown parameter: 'max_completion_tokens'"
    async with provider(OpenAI(refused=refused)) as server, connectors() as asked:
        where = endpoint("openai", server.base_url)
        with pytest.raises(QuestionRefusedError, match="max_completion_tokens"):
            await asked.ask(replace(CHAT, endpoint=where))
    assert len(server.requests) == 2
