"""The identity of a question and the stored form of an answer: all that is kept rests on them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomerge.connectors.question import (
    ANSWER_FORM,
    Answer,
    Completion,
    Endpoint,
    Message,
    Question,
    Sampling,
    Token,
)

texts = st.text(max_size=8)
endpoints = st.builds(Endpoint, st.just("openai"), texts, texts, st.none() | texts)
questions = st.builds(
    Question,
    endpoints,
    messages=st.lists(st.builds(Message, st.just("user"), texts), max_size=3).map(tuple),
    prompts=st.lists(texts, max_size=3).map(tuple),
    sampling=st.builds(Sampling, st.integers(0, 99), st.floats(0, 2), stop=st.tuples(texts)),
    alternatives=st.none() | st.integers(0, 20),
    echo=st.booleans(),
    samples=st.integers(1, 5),
    sample=st.integers(0, 5),
)
logprobs = st.floats(max_value=0, allow_nan=False, allow_infinity=False)
alternatives = st.lists(st.tuples(texts, logprobs), max_size=3).map(tuple)
tokens = st.lists(st.builds(Token, texts, st.none() | logprobs, alternatives), max_size=3).map(
    tuple
)
answers = st.builds(
    Answer,
    st.lists(st.builds(Completion, texts, st.just("stop"), tokens, tokens), max_size=3).map(tuple),
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.integers(0, 9),
)
QUESTION = Question(Endpoint("openai", "https://a/v1", "m"), (Message("user", "why?"),))


@given(question=questions)
def test_a_key_is_the_hash_of_all_but_the_credential(question: Question) -> None:
    content = asdict(question)
    del content["endpoint"]["credential"]
    content["form"] = ANSWER_FORM
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    assert question.key == sha256(canonical.encode()).hexdigest()


def test_a_key_stays_what_it_was() -> None:
    """Answers that are stored already are found by it."""
    assert QUESTION.key == "79654b46faf4a49abbcbb4bd655b5e1affc44a37d89c7e53e2cab10008356128"


@pytest.mark.parametrize(
    "other",
    [
        replace(QUESTION, endpoint=replace(QUESTION.endpoint, base_url="https://b/v1")),
        replace(QUESTION, endpoint=replace(QUESTION.endpoint, model="n")),
        replace(QUESTION, messages=(Message("user", "why"),)),
        replace(QUESTION, sampling=Sampling(temperature=0.5)),
        replace(QUESTION, sample=1),
        replace(QUESTION, alternatives=0),
        replace(QUESTION, extra='{"a":1}'),
    ],
)
def test_every_part_tells_questions_apart(other: Question) -> None:
    assert other.key != QUESTION.key
    mine = replace(QUESTION, endpoint=replace(QUESTION.endpoint, credential="mine"))
    assert mine.key == QUESTION.key


@given(answer=answers)
def test_an_answer_is_stored_whole(answer: Answer) -> None:
    stored = json.loads(json.dumps(answer.to_json(), allow_nan=False))

    assert Answer.from_json(stored) == answer


def test_an_answer_is_stored_in_a_form_that_stays() -> None:
    """Answers that are stored already are read by it: of tokens, a list for each part.

    Whoever changes it raises `ANSWER_FORM`.
    """
    tokens = (Token("It", -0.5, (("It", -0.5), ("A", -1.5))), Token(" is", None))
    answer = Answer((Completion("It is", "stop", tokens),), 20, 2)

    assert ANSWER_FORM == 2
    assert json.loads(json.dumps(answer.to_json())) == {
        "completions": [
            {
                "text": "It is",
                "finish": "stop",
                "tokens": [["It", " is"], [-0.5, None], [[["It", -0.5], ["A", -1.5]], []]],
                "prompt_tokens": [],
            }
        ],
        "input_tokens": 20,
        "output_tokens": 2,
        "requests": 1,
        "lost": 0,
    }
