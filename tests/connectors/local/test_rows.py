"""Examples as tokens. The tiny tokenizer has one token a byte, so sizes are easy to see."""

from __future__ import annotations

import pytest
from tests.support.tiny import tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from evomerge.connectors.local.errors import ContextOverflowError, EmptyAnswerError
from evomerge.connectors.local.rows import Row, RowEncoder
from evomerge.evaluation.example import Example

END = "<|endoftext|>"
CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def parts(words: PreTrainedTokenizerFast, row: Row) -> tuple[str, str]:
    return words.decode(row.tokens[: row.start]), words.decode(row.tokens[row.start :])


def test_prompt_is_given_and_the_rest_scored() -> None:
    words = tokenizer()
    row = RowEncoder(words, 100).scored(Example("2+2=", "four"))
    assert parts(words, row) == ("2+2=", f" four{END}")
    assert row.scored == 6


def test_prefix_and_end_of_text_are_a_choice() -> None:
    words = tokenizer()
    encoder = RowEncoder(words, 100, answer_prefix="\nA: ", end_of_text=False)
    assert parts(words, encoder.scored(Example("Q", "yes"))) == ("Q", "\nA: yes")


def test_an_option_in_place_of_the_completion() -> None:
    words = tokenizer()
    example = Example("Q", "b", choices=("a", "b"))
    assert parts(words, RowEncoder(words, 100).scored(example, "a")) == ("Q", f" a{END}")


def test_chat_rows_go_through_the_template() -> None:
    words = tokenizer()
    example = Example("user: hi", "hello", messages=(("user", "hi"),))
    plain = RowEncoder(words, 100).scored(example)
    assert parts(words, plain) == ("user: hi", f" hello{END}")
    words.chat_template = CHAT
    templated = RowEncoder(words, 100)
    assert parts(words, templated.scored(example)) == ("[user]hi[assistant]", f"hello{END}")
    assert words.decode(templated.asked(example, 5)) == "[user]hi[assistant]"


def test_every_token_of_raw_text_is_scored() -> None:
    words = tokenizer()
    row = RowEncoder(words, 100).scored(Example("", "abc"))
    assert parts(words, row) == (END, "abc")


def test_beginning_of_text_stands_first_where_the_tokenizer_puts_it() -> None:
    words = tokenizer()
    words.add_special_tokens({"bos_token": "<s>"})
    plain = RowEncoder(words, 100)
    assert parts(words, plain.scored(Example("Q", "a")))[0] == "Q"
    assert parts(words, plain.scored(Example("", "abc"))) == ("<s>", "abc")
    words.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", words.bos_token_id)]
    )
    encoder = RowEncoder(words, 10, context_tokens=10)
    assert parts(words, encoder.scored(Example("Q", "a")))[0] == "<s>Q"
    assert parts(words, encoder.scored(Example("0123456789", "abcd"))) == ("<s>789", f" abcd{END}")


def test_the_prompt_is_cut_from_the_left_when_asked() -> None:
    words = tokenizer()
    encoder = RowEncoder(words, 100, context_tokens=8)
    assert parts(words, encoder.scored(Example("0123456789", "ab"))) == ("6789", f" ab{END}")
    assert words.decode(encoder.asked(Example("0123456789", "ab"), 5)) == "789"
    assert parts(words, encoder.scored(Example("", "0123456789"))) == (END, "3456789")


def test_context_tokens_never_exceed_the_models_context() -> None:
    encoder = RowEncoder(tokenizer(), 8, context_tokens=1000)
    assert len(encoder.scored(Example("0123456789", "ab")).tokens) == 8


def test_a_row_of_exactly_the_context_fits() -> None:
    assert len(RowEncoder(tokenizer(), 8).scored(Example("0123", "ab")).tokens) == 8


@pytest.mark.parametrize(
    ("example", "tokens"),
    [(Example("01234", "ab", row=17), 9), (Example("", "01234567", row=17), 9)],
)
def test_a_row_above_the_context_is_refused_with_its_sizes(example: Example, tokens: int) -> None:
    with pytest.raises(ContextOverflowError, match=f"row 17: .* {tokens} tokens.* 8") as caught:
        RowEncoder(tokenizer(), 8).scored(example)
    assert (caught.value.row, caught.value.tokens, caught.value.limit) == (17, tokens, 8)


def test_an_answer_that_leaves_no_room_for_a_prompt_is_refused() -> None:
    encoder = RowEncoder(tokenizer(), 100, context_tokens=8)
    with pytest.raises(ContextOverflowError, match="row 3: the answer alone"):
        encoder.scored(Example("0123", "abcdef", row=3))
    with pytest.raises(ContextOverflowError, match="row 3: the answer alone"):
        encoder.asked(Example("0123", "a", row=3), 8)


def test_an_answer_without_a_token_is_refused() -> None:
    encoder = RowEncoder(tokenizer(), 100, answer_prefix="", end_of_text=False)
    with pytest.raises(EmptyAnswerError, match="row 4"):
        encoder.scored(Example("Q", "", row=4))
