"""Read the answers of OpenAI-compatible servers: many shapes in, one out. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from evomerge.connectors.expert import Capabilities
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.question import Answer, Completion, Finish, Question, Token
from evomerge.connectors.shapes import count, cut, entries, logprob, mapping, word

FINISHES: Mapping[str, Finish] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "refusal": "content_filter",
}


@dataclass(frozen=True)
class Asked:
    """What an answer has to fit.

    Attributes:
        question: as it was sent.
        sent_zero: whether nothing was to be generated and the server obeys that.
        bytes_per_token, overhead_tokens: to estimate tokens that the server does not count.
    """

    question: Question
    sent_zero: bool
    bytes_per_token: float
    overhead_tokens: int

    @classmethod
    def of(cls, question: Question, capabilities: Capabilities) -> Self:
        zero = question.sampling.max_tokens == 0 and capabilities.zero_tokens
        return cls(question, zero, capabilities.bytes_per_token, capabilities.overhead_tokens)

    @property
    def input_tokens(self) -> int:
        """Estimated."""
        texts = max(1, len(self.question.prompts))
        return self.tokens(self.question.input_bytes) + self.overhead_tokens * texts

    def tokens(self, size: int) -> int:
        """Tokens in `size` bytes, estimated."""
        return math.ceil(size / self.bytes_per_token)


def read_answer(asked: Asked, said: Any) -> Answer:
    """The answer in a 200's JSON.

    Raises:
        BadAnswerError: it is not what was asked for; says what is missing.
    """
    question = asked.question
    choices = _ordered(entries(mapping(said, "the answer"), "choices"))
    expected = max(1, len(question.prompts)) * question.samples
    if len(choices) != expected:
        raise BadAnswerError(f"{len(choices)} choices where {expected} were asked for")
    completions = []
    for place, choice in enumerate(choices):
        prompt = question.prompts[place // question.samples] if question.prompts else ""
        completions.append(_completion(asked, choice, prompt))
    usage = said.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    output = sum(asked.tokens(len(one.text.encode())) for one in completions)
    return Answer(
        tuple(completions),
        count(counted.get("prompt_tokens"), asked.input_tokens),
        count(counted.get("completion_tokens"), output),
    )


def _completion(asked: Asked, choice: Mapping[str, Any], prompt: str) -> Completion:
    question = asked.question
    text, refused = _text(choice)
    tokens = _tokens(choice.get("logprobs"), question.alternatives or 0)
    prompt_tokens: tuple[Token, ...] = ()
    echoed = _prompt_logprobs(choice.get("prompt_logprobs"), question.alternatives or 0)
    if echoed:
        prompt_tokens = echoed
    elif question.echo:
        text, prompt_tokens, tokens = _split(text, tokens, prompt, asked.sent_zero)
    finish = _finish(choice, refused)
    if question.sampling.max_tokens == 0:
        # Where nothing may be generated but 1 had to be asked for, that one is not an answer.
        text, tokens, finish = "", (), "length"
    if question.alternatives is None:
        tokens = ()
    text, tokens, finish = cut(text, tokens, finish, question.sampling.stop)
    return Completion(text, finish, tokens, prompt_tokens)


def _text(choice: Mapping[str, Any]) -> tuple[str, bool]:
    """Text of a choice, and whether it is a refusal."""
    if "text" in choice and "message" not in choice:
        text = choice["text"]
        if text is not None and not isinstance(text, str):
            raise BadAnswerError(f"text is {type(text).__name__}, not a string")
        return text or "", False
    message = mapping(choice.get("message"), "choices[].message")
    content = message.get("content")
    if isinstance(content, list):
        pieces = (part.get("text") for part in content if isinstance(part, dict))
        content = "".join(piece for piece in pieces if isinstance(piece, str))
    if content is None:
        refusal = message.get("refusal")
        return (refusal, True) if isinstance(refusal, str) and refusal else ("", False)
    if not isinstance(content, str):
        raise BadAnswerError(f"message.content is {type(content).__name__}, not a string")
    return content, False


def _finish(choice: Mapping[str, Any], refused: bool) -> Finish:
    if refused:
        return "content_filter"
    said = choice.get("finish_reason")
    return FINISHES.get(said.lower(), "other") if isinstance(said, str) else "other"


def _tokens(logprobs: Any, most: int) -> tuple[Token, ...]:
    """Either shape: chat's list of objects, or the parallel lists of completions."""
    if not isinstance(logprobs, dict):
        return ()
    if isinstance(logprobs.get("content"), list):
        return tuple(_chat_token(one, most) for one in logprobs["content"])
    texts = logprobs.get("tokens")
    if not isinstance(texts, list):
        return ()
    numbers = _beside(logprobs.get("token_logprobs"), texts)
    tops = _beside(logprobs.get("top_logprobs"), texts)
    return tuple(
        Token(word(text), logprob(number), _alternatives(_pairs(top), most))
        for text, number, top in zip(texts, numbers, tops, strict=True)
    )


def _chat_token(said: Any, most: int) -> Token:
    one = mapping(said, "logprobs.content[]")
    tops = one.get("top_logprobs")
    pairs = [
        (top.get("token"), top.get("logprob"))
        for top in (tops if isinstance(tops, list) else ())
        if isinstance(top, dict)
    ]
    return Token(word(one.get("token")), logprob(one.get("logprob")), _alternatives(pairs, most))


def _prompt_logprobs(said: Any, most: int) -> tuple[Token, ...]:
    """vLLM's `prompt_logprobs`: a position is {id: {logprob, decoded_token}}, own token first."""
    if not isinstance(said, list):
        return ()
    found = []
    for position in said:
        if not position:
            found.append(Token("", None))
            continue
        ranked = [
            mapping(one, "prompt_logprobs[]") for one in mapping(position, "position").values()
        ]
        pairs = [(one.get("decoded_token"), one.get("logprob")) for one in ranked]
        found.append(Token(word(pairs[0][0]), logprob(pairs[0][1]), _alternatives(pairs, most)))
    return tuple(found)


def _split(
    text: str, tokens: Sequence[Token], prompt: str, sent_zero: bool
) -> tuple[str, tuple[Token, ...], tuple[Token, ...]]:
    """An echoed text as generated text, prompt tokens, generated tokens."""
    if not text.startswith(prompt):
        raise BadAnswerError("echo was asked for, and the text does not begin with the prompt")
    if not tokens:
        raise BadAnswerError("log-probabilities were asked for, and there are none")
    generated = text[len(prompt) :]
    if sent_zero:
        return generated, tuple(tokens), ()
    return generated, *_parted(tokens, prompt)


def _parted(tokens: Sequence[Token], prompt: str) -> tuple[tuple[Token, ...], tuple[Token, ...]]:
    """Tokens up to the end of the prompt, and behind it.

    Offsets are not trusted: servers count the text of special tokens before the prompt in some of
    them. The tokens' own text is; what stands before the prompt in it (such as <s>) belongs to it.
    """
    joined = "".join(token.text for token in tokens)
    start = joined.find(prompt)
    if start < 0:
        raise BadAnswerError("the echoed tokens do not spell the prompt")
    end, at = start + len(prompt), 0
    for place, token in enumerate(tokens):
        if at >= end:
            return tuple(tokens[:place]), tuple(tokens[place:])
        at += len(token.text)
    return tuple(tokens), ()


def _ordered(choices: list[Any]) -> list[Mapping[str, Any]]:
    """By index, where each has one of its own."""
    found = [mapping(choice, "choices[]") for choice in choices]
    places = [choice.get("index") for choice in found]
    if sorted(place for place in places if isinstance(place, int)) != list(range(len(found))):
        return found
    return [replaced for _, replaced in sorted(zip(places, found, strict=True), key=_place)]


def _place(pair: tuple[Any, Any]) -> int:
    place: int = pair[0]
    return place


def _pairs(top: Any) -> list[tuple[Any, Any]]:
    return list(top.items()) if isinstance(top, dict) else []


def _alternatives(pairs: Sequence[tuple[Any, Any]], most: int) -> tuple[tuple[str, float], ...]:
    """Likeliest first, `most` at most, without those that have no number."""
    found = [(word(text), number) for text, said in pairs if (number := logprob(said)) is not None]
    return tuple(sorted(found, key=lambda one: -one[1])[:most])


def _beside(said: Any, texts: Sequence[Any]) -> Sequence[Any]:
    if said is None:
        return [None] * len(texts)
    if not isinstance(said, list) or len(said) != len(texts):
        raise BadAnswerError("logprobs has lists of different lengths")
    return said
