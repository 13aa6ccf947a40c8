"""What experts are asked about an example."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.outputs import ALTERNATIVES, CHAT, ECHOING, ENDPOINT, expert

from evomerge.connectors.expert import Capabilities
from evomerge.connectors.output.errors import ExpertUnableError, TaskSettingError
from evomerge.connectors.output.labels import listing
from evomerge.connectors.output.questions import calls, output_tokens, questions
from evomerge.connectors.output.task import ChoiceMethod, Task, check, choice_method
from evomerge.connectors.question import Message, Sampling
from evomerge.evaluation.example import Example

CHOICE = Example("Is it so?", "no", ("yes", "no"))
WORDS = Example("Who?", "person: Ann")
TEXT = Example("", "Once upon a time")
MANY = Example("Which?", "option 3", tuple(f"option {i}" for i in range(30)))


def task(kind: str = "choice", metric: str = "cross_entropy", **fields: object) -> Task:
    return Task(kind, metric, **fields)  # type: ignore[arg-type]


def test_choice_by_prompt_logprobs_is_one_batch_of_all_options() -> None:
    ann = expert(capabilities=ECHOING, system="Be brief.", template="Q: {prompt}\nA:")
    (asked,) = questions(ann, CHOICE, task())
    assert asked.prompts == (
        "Be brief.\n\nQ: Is it so?\nA: yes",
        "Be brief.\n\nQ: Is it so?\nA: no",
    )
    assert asked.echo
    assert asked.sampling == Sampling(max_tokens=0, temperature=0.0)
    assert asked.endpoint == ENDPOINT
    careful = replace(ann, capabilities=replace(ECHOING, zero_tokens=False))
    assert questions(careful, CHOICE, task())[0].sampling.max_tokens == 1


def test_the_answer_prefix_stands_before_each_option() -> None:
    (asked,) = questions(expert(capabilities=ECHOING), CHOICE, task(answer_prefix="\n"))
    assert asked.prompts == ("Is it so?\nyes", "Is it so?\nno")


def test_choice_by_first_token_lists_the_options_and_asks_for_one_token() -> None:
    ann = expert(capabilities=ALTERNATIVES, sampling=Sampling(temperature=0.9, stop=("\n",)))
    (asked,) = questions(ann, CHOICE, task())
    assert asked.messages == (Message("user", f"Is it so?{listing(CHOICE.choices)}"),)
    assert asked.sampling == Sampling(max_tokens=1, temperature=0.0)
    assert asked.alternatives == 5
    by_text = replace(ann, capabilities=replace(ALTERNATIVES, interface="completions"))
    assert questions(by_text, CHOICE, task())[0].prompts == (f"Is it so?{listing(CHOICE.choices)}",)


def test_samples_in_one_request_or_one_by_one() -> None:
    drawn = task(samples=3, choice_method="samples")
    together = expert(capabilities=replace(CHAT, samples=True))
    (asked,) = questions(together, CHOICE, drawn)
    assert (asked.samples, asked.sample, asked.sampling.temperature) == (3, 0, 0.7)
    alone = expert(sampling=Sampling(temperature=0.4, seed=5))
    several = questions(alone, CHOICE, drawn)
    assert [one.sample for one in several] == [0, 1, 2]
    assert [one.sampling.seed for one in several] == [5, 6, 7]
    assert {one.sampling.temperature for one in several} == {0.4}
    assert len({one.key for one in several}) == 3
    assert (calls(together, CHOICE, drawn), calls(alone, CHOICE, drawn)) == (1, 3)


def test_one_answer_is_drawn_as_the_expert_draws() -> None:
    (asked,) = questions(expert(), CHOICE, task(choice_method="samples"))
    assert (asked.samples, asked.sample, asked.sampling.temperature) == (1, 0, 0.0)


@pytest.mark.parametrize(
    ("capabilities", "method"),
    [
        (ECHOING, "prompt_logprobs"),
        (replace(ECHOING, batches=False), "first_token"),
        (replace(ECHOING, batches=False, alternatives=0), "samples"),
        (replace(ECHOING, interface="chat"), "first_token"),
        (ALTERNATIVES, "first_token"),
        (CHAT, "samples"),
    ],
)
def test_auto_takes_the_best_that_the_api_gives(
    capabilities: Capabilities, method: ChoiceMethod
) -> None:
    assert choice_method(expert(capabilities=capabilities), task(), options=4) == method


def test_more_options_than_letters() -> None:
    letters = expert(capabilities=ALTERNATIVES)
    assert choice_method(letters, task(), options=26) == "first_token"
    assert choice_method(letters, task(), options=27) == "samples"
    (asked,) = questions(letters, MANY, task())
    assert "\n30. option 29\n" in asked.messages[-1].content
    assert asked.alternatives is None
    (batch,) = questions(expert(capabilities=ECHOING), MANY, task())
    assert len(batch.prompts) == 30
    with pytest.raises(ExpertUnableError, match=r"'ann'.*27 options"):
        choice_method(letters, task(choice_method="first_token"), options=27)


@pytest.mark.parametrize(
    ("capabilities", "method"),
    [
        (CHAT, "first_token"),
        (ALTERNATIVES, "prompt_logprobs"),
        (replace(ECHOING, batches=False), "prompt_logprobs"),
    ],
)
def test_a_named_method_that_the_api_does_not_give_is_refused(
    capabilities: Capabilities, method: ChoiceMethod
) -> None:
    with pytest.raises(ExpertUnableError, match=rf"'bob'.*{method}"):
        check(expert("bob", capabilities), task(choice_method=method))


@pytest.mark.parametrize("kind", ["extraction", "free_text"])
def test_answers_in_words_are_asked_as_the_expert_is_asked(kind: str) -> None:
    ann = expert(
        system="Be brief.",
        template="Q: {prompt}",
        sampling=Sampling(max_tokens=9, temperature=0.2, stop=("\n\n",)),
    )
    (asked,) = questions(ann, WORDS, task(kind, "item_f1", max_tokens=40))
    assert asked.messages == (Message("system", "Be brief."), Message("user", "Q: Who?"))
    assert asked.sampling == replace(ann.sampling, max_tokens=40)
    assert asked.alternatives is None
    several = questions(ann, WORDS, task(kind, "item_f1", samples=2))
    assert [one.sample for one in several] == [0, 1]


def test_a_chat_row_keeps_its_turns() -> None:
    turns = (("user", "Hi"), ("assistant", "Yes?"), ("user", "Who?"))
    chat = replace(WORDS, messages=turns)
    (asked,) = questions(expert(template="Q: {prompt}"), chat, task("free_text", "token_f1"))
    assert [message.content for message in asked.messages] == ["Hi", "Yes?", "Q: Who?"]


def test_scored_text_is_echoed_whole() -> None:
    ann = expert(capabilities=replace(ECHOING, batches=False), template="Q: {prompt}\nA:")
    (asked,) = questions(ann, WORDS, task("scored_text"))
    assert asked.prompts == ("Q: Who?\nA: person: Ann",)
    assert asked.echo
    (raw,) = questions(expert(capabilities=ECHOING), TEXT, task("scored_text"))
    assert raw.prompts == ("Once upon a time",)


def test_scored_text_needs_log_probabilities_of_prompts() -> None:
    with pytest.raises(ExpertUnableError, match=r"'bob'.*log-probabilities of prompts"):
        questions(expert("bob", ALTERNATIVES), WORDS, task("scored_text"))


def test_output_tokens_are_known_for_labels_and_echoes_and_guessed_for_words() -> None:
    def tokens(capabilities: Capabilities, example: Example, asked: Task) -> tuple[int, int]:
        ann = expert(capabilities=capabilities)
        (question,) = questions(ann, example, asked)
        found = output_tokens(ann, example, question)
        return found.most, found.typical

    assert tokens(ALTERNATIVES, CHOICE, task()) == (1, 1)
    assert tokens(ECHOING, CHOICE, task()) == (0, 0)
    assert tokens(replace(ECHOING, zero_tokens=False), CHOICE, task()) == (2, 2)
    words = task("extraction", "item_f1", max_tokens=40)
    assert tokens(CHAT, WORDS, words) == (40, 4), "11 bytes at 4 a token, and the end"
    assert tokens(replace(CHAT, interface="completions"), WORDS, words) == (40, 40)
    assert tokens(CHAT, WORDS, replace(words, max_tokens=2)) == (2, 2)
    thrice = replace(words, samples=3)
    assert tokens(replace(CHAT, samples=True), WORDS, thrice) == (120, 12)
    most, typical = tokens(CHAT, CHOICE, task())
    assert typical <= most


@pytest.mark.parametrize(
    ("field", "value"), [("max_tokens", 0), ("samples", 0), ("smoothing", 0.0)]
)
def test_refuses_settings_out_of_range(field: str, value: float) -> None:
    with pytest.raises(TaskSettingError, match=field):
        task(**{field: value})
    with pytest.raises(TaskSettingError, match="temperature"):
        task(samples=2, temperature=0.0)
