"""The official client, unmodified, against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI
from tests.app.serving.conftest import TEMPLATE
from tests.support.served import EXAMPLES, World

from evomerge.connectors.local.base_model import BaseModel, load_base
from evomerge.connectors.local.forward import answer_nll
from evomerge.connectors.local.generation import greedy_answers
from evomerge.connectors.local.rows import Row
from evomerge.merging.lora.adapter import read_adapter
from evomerge.merging.lora.artifact import MergedAdapter
from evomerge.merging.lora.population import Population

PROMPTS = [example.prompt for example in EXAMPLES]


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="sk-right", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def base(world: World) -> BaseModel:
    return load_base(world.base, threads=1)


def population(world: World, name: str) -> Population:
    return MergedAdapter(read_adapter(world.adapters[name]).modules).population()


def ids(base: BaseModel, text: str) -> tuple[int, ...]:
    return tuple(base.tokenizer(text).input_ids)


def greedy(base: BaseModel, world: World, name: str, texts: list[str], room: int) -> list[str]:
    [answers] = greedy_answers(
        base,
        population(world, name),
        [ids(base, text) for text in texts],
        max_new_tokens=room,
        batch_tokens=4096,
    )
    return [answer.text for answer in answers]


def test_models_are_listed_and_found(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert sorted(names) == ["chatty", "merged", "one", "two"]
    assert client.models.retrieve("merged").owned_by == "evomerge"
    assert client.models.retrieve("mj_merged").id == "mj_merged"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("nobody")
    assert refused.value.code == "model_not_found"


def test_a_merges_greedy_answers_are_the_evaluators(
    client: OpenAI, base: BaseModel, world: World
) -> None:
    expected = greedy(base, world, "mj_merged", PROMPTS, 12)
    for prompt, text in zip(PROMPTS, expected, strict=True):
        chat = client.chat.completions.create(
            model="merged", messages=[{"role": "user", "content": prompt}], temperature=0
        )
        assert chat.choices[0].message.content == text
        assert chat.usage is not None
        assert chat.usage.prompt_tokens == len(ids(base, prompt))
    whole = client.completions.create(
        model="mj_merged", prompt=PROMPTS, temperature=0, max_tokens=12
    )
    assert [choice.text.strip() for choice in whole.choices] == expected
    assert [choice.index for choice in whole.choices] == [0, 1, 2, 3]


def test_experts_answer_beside_merges(client: OpenAI, base: BaseModel, world: World) -> None:
    for model, name in [("one", "one"), ("ex_two", "two")]:
        said = client.completions.create(model=model, prompt=PROMPTS, temperature=0, max_tokens=9)
        expected = greedy(base, world, name, PROMPTS, 9)
        assert [choice.text.strip() for choice in said.choices] == expected


def test_a_chat_takes_the_form_of_the_jobs_rows(
    client: OpenAI, base: BaseModel, world: World
) -> None:
    assert "<assistant>" in TEMPLATE
    forms = {
        ("chatty", "mj_chatty"): "<user>hello<assistant>",
        ("merged", "mj_merged"): "hello",
        ("one", "one"): "<user>hello<assistant>",
        ("two", "two"): "hello",
    }
    for (model, name), prompt in forms.items():
        chat = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "hello"}],
            temperature=0,
            max_completion_tokens=8,
        )
        assert [chat.choices[0].message.content] == greedy(base, world, name, [prompt], 8)


def test_streams_say_what_whole_answers_say(client: OpenAI) -> None:
    messages = [{"role": "user", "content": PROMPTS[0]}]
    asked = {"model": "merged", "messages": messages, "seed": 4, "temperature": 1.2, "n": 2}
    whole = client.chat.completions.create(**asked)
    texts = ["", ""]
    finish = [None, None]
    roles = []
    usage = None
    for chunk in client.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            roles.append(choice.delta.role)
            texts[choice.index] += choice.delta.content or ""
            finish[choice.index] = choice.finish_reason or finish[choice.index]
    assert texts == [choice.message.content for choice in whole.choices]
    assert texts[0] != texts[1]
    assert finish == [choice.finish_reason for choice in whole.choices]
    assert roles.count("assistant") == 2
    assert usage == whole.usage

    streamed = client.completions.create(
        model="merged", prompt=PROMPTS[0], echo=True, logprobs=1, temperature=0, stream=True
    )
    pieces = [choice for chunk in streamed for choice in chunk.choices]
    again = client.completions.create(
        model="merged", prompt=PROMPTS[0], echo=True, logprobs=1, temperature=0
    )
    assert "".join(piece.text for piece in pieces) == again.choices[0].text
    logprobs = again.choices[0].logprobs
    assert logprobs is not None
    for field in ("tokens", "token_logprobs", "text_offset", "top_logprobs"):
        joined = [
            one for piece in pieces if piece.logprobs for one in getattr(piece.logprobs, field)
        ]
        assert joined == getattr(logprobs, field)


def test_an_echoed_prompt_is_scored_as_the_evaluator_scores_it(
    client: OpenAI, base: BaseModel, world: World
) -> None:
    tokens = [list(ids(base, prompt)) for prompt in PROMPTS]
    scored = client.completions.create(
        model="merged", prompt=tokens, max_tokens=0, echo=True, logprobs=2
    )
    rows = [Row(tuple(each), 1) for each in tokens if len(each) > 1]
    nll = iter(answer_nll(base, population(world, "mj_merged"), rows, batch_tokens=4096)[0])
    for prompt, choice in zip(PROMPTS, scored.choices, strict=True):
        logprobs = choice.logprobs
        assert logprobs is not None
        assert choice.text == prompt
        assert choice.finish_reason == "length"
        assert logprobs.tokens == list(prompt)
        assert logprobs.text_offset == list(range(len(prompt)))
        assert logprobs.token_logprobs[0] is None
        if len(prompt) > 1:
            total = -sum(logprobs.token_logprobs[1:])
            assert total == pytest.approx(next(nll), abs=1e-3)
        for token, value, top in zip(
            logprobs.tokens[1:], logprobs.token_logprobs[1:], logprobs.top_logprobs[1:], strict=True
        ):
            assert top[token] == value
            assert len(top) in (2, 3)
            assert max(top.values()) >= value
    assert scored.usage is not None
    assert scored.usage.completion_tokens == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("cut", "echoed", "offsets"),
    [
        (0, "naïf né", [0, 1, 2, 2, 3, 4, 5, 6, 6]),
        (1, "naïf n\ufffd", [0, 1, 2, 2, 3, 4, 5, 6]),
        # A piece of a character, and the rest of it nowhere: of its own, in the text as in here.
        (-1, "naïf né\ufffd", [0, 1, 2, 2, 3, 4, 5, 6, 6, 7]),
    ],
)
def test_a_prompt_that_ends_in_a_piece_of_a_character_shifts_no_offset(
    client: OpenAI, base: BaseModel, cut: int, echoed: str, offsets: list[int], stream: bool
) -> None:
    tokens = ids(base, "naïf né")
    tokens = (*tokens, tokens[-2]) if cut < 0 else tokens[: len(tokens) - cut]
    wanted = {"model": "merged", "prompt": tokens, "max_tokens": 0, "echo": True, "logprobs": 0}
    if stream:
        choice = next(iter(client.completions.create(**wanted, stream=True))).choices[0]
    else:
        choice = client.completions.create(**wanted).choices[0]
    assert choice.text == echoed
    assert choice.logprobs is not None
    assert choice.logprobs.text_offset == offsets


def test_generated_tokens_get_the_numbers_that_echoing_them_gives(client: OpenAI) -> None:
    said = client.completions.create(
        model="merged", prompt=PROMPTS[0], max_tokens=6, logprobs=3, temperature=0
    ).choices[0]
    assert said.logprobs is not None
    chat = client.chat.completions.create(
        model="merged",
        messages=[{"role": "user", "content": PROMPTS[0]}],
        max_tokens=6,
        logprobs=True,
        top_logprobs=3,
        temperature=0,
    ).choices[0]
    assert chat.logprobs is not None
    assert chat.logprobs.content is not None
    own = [token.logprob for token in chat.logprobs.content]
    assert own == pytest.approx(said.logprobs.token_logprobs, abs=1e-4)
    for token in chat.logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob)
        assert token.bytes


def test_errors_are_the_clients_own(client: OpenAI, url: str) -> None:
    def chat(**more: object) -> None:
        asked = {"model": "merged", "messages": [{"role": "user", "content": "a"}], **more}
        client.chat.completions.create(**asked)  # type: ignore[call-overload]

    with pytest.raises(openai.NotFoundError) as missing:
        chat(model="nobody")
    assert missing.value.code == "model_not_found"
    assert missing.value.param == "model"
    with pytest.raises(openai.ConflictError, match="mj_queued is queued"):
        chat(model="mj_queued")
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="merged", prompt="x" * 300)
    assert long.value.code == "context_length_exceeded"
    for param, value in {
        "tools": [{"type": "function", "function": {"name": "f"}}],
        "response_format": {"type": "json_object"},
        "logit_bias": {"1": 2},
        "presence_penalty": 0.5,
        "temperature": 3,
        "top_logprobs": 30,
        "extra_body": {"top_k": 5},
    }.items():
        with pytest.raises(openai.BadRequestError) as refused:
            chat(**{param: value})
        assert refused.value.param == ("top_k" if param == "extra_body" else param)
    stranger = OpenAI(base_url=f"{url}/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    stranger.close()


def test_what_changes_nothing_is_taken(client: OpenAI) -> None:
    said = client.chat.completions.create(
        model="merged",
        messages=[
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": "a"},
        ],
        presence_penalty=0,
        frequency_penalty=0,
        logit_bias={},
        response_format={"type": "text"},
        user="u",
        metadata={"a": "b"},
        store=False,
        max_tokens=3,
        stop=["zzz"],
    )
    assert said.choices[0].finish_reason in ("length", "stop")
