"""Anthropic's Messages API: no log-probabilities, one answer a request, no seed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from evomerge.connectors.client import Call, Caller, Hook, x_api_key
from evomerge.connectors.errors import QuestionRefusedError
from evomerge.connectors.expert import Capabilities
from evomerge.connectors.http_errors import BadAnswerError
from evomerge.connectors.openai_answer import Asked
from evomerge.connectors.parameters import adapting
from evomerge.connectors.question import Answer, Completion, Endpoint, Finish, Message, Question
from evomerge.connectors.shapes import count, cut, mapping

VERSION = {"anthropic-version": "2023-06-01"}
FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
COUNTED = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")


@dataclass
class AnthropicConnector:
    """Asks Claude."""

    caller: Caller

    def refused(self, endpoint: Endpoint) -> set[str]:
        """Parameters that this model was seen to refuse."""
        return self.caller.habits.refused(endpoint)

    async def ask(
        self,
        question: Question,
        capabilities: Capabilities | None = None,
        on_attempt: Hook | None = None,
    ) -> Answer:
        """See `Connector.ask`. Several samples are several requests.

        Raises:
            QuestionRefusedError: it wants log-probabilities, or continues a bare text.
            AskError: there is no answer.
        """
        capabilities = capabilities or Capabilities()
        call = Call(question.endpoint, on_attempt)
        fields = body(call, question)
        asked = Asked.of(question, capabilities)
        tokens = asked.input_tokens + question.sampling.max_tokens

        async def send(kept: dict[str, Any]) -> Answer:
            return await self.caller.post(
                call,
                "/messages",
                kept,
                read=lambda said: read_answer(asked, said),
                tokens=tokens,
                scheme=x_api_key,
                headers=VERSION,
            )

        answers = [
            await adapting(call, fields, capabilities, self.caller.habits, send)
            for _ in range(question.samples)
        ]
        return Answer(
            tuple(completion for answer in answers for completion in answer.completions),
            sum(answer.input_tokens for answer in answers),
            sum(answer.output_tokens for answer in answers),
            call.requests,
            call.lost,
        )


def body(call: Call, question: Question) -> dict[str, Any]:
    """The request's JSON.

    Raises:
        QuestionRefusedError: this API has no way to answer it; `param` says what stands in the way.
    """
    turns = [message for message in question.messages if message.role != "system"]
    for param, wanted, reason in (
        ("echo", question.echo, "Anthropic gives no log-probabilities of the prompt"),
        ("logprobs", question.alternatives is not None, "Anthropic gives no log-probabilities"),
        ("prompt", bool(question.prompts), "Anthropic answers chats, it continues no bare text"),
        ("messages", not turns or turns[0].role != "user", "a chat begins with the user"),
    ):
        if wanted:
            raise QuestionRefusedError(call.who, reason, param=param, requests=0)
    sampling = question.sampling
    fields: dict[str, Any] = {
        "model": question.endpoint.model,
        "max_tokens": max(1, sampling.max_tokens),
        "messages": _merged(turns),
        "temperature": sampling.temperature,
    }
    system = "\n\n".join(one.content for one in question.messages if one.role == "system")
    if system:
        fields["system"] = system
    if sampling.top_p is not None:
        fields["top_p"] = sampling.top_p
    # Blank ones are refused there; `cut` obeys them here.
    stops = [stop for stop in sampling.stop if stop.strip()]
    if stops:
        fields["stop_sequences"] = stops
    fields.update(json.loads(question.extra))
    return fields


def read_answer(asked: Asked, said: Any) -> Answer:
    """The answer in a 200's JSON.

    Raises:
        BadAnswerError: it is not a message.
    """
    message = mapping(said, "the answer")
    content = message.get("content")
    if not isinstance(content, list):
        raise BadAnswerError("no content in the answer")
    blocks = [mapping(block, "content[]") for block in content]
    text = "".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text")
    finish = FINISHES.get(str(message.get("stop_reason")), "other")
    if asked.question.sampling.max_tokens == 0:
        text, finish = "", "length"
    text, _, finish = cut(text, (), finish, asked.question.sampling.stop)
    usage = message.get("usage")
    counted = usage if isinstance(usage, dict) else {}
    read = sum(count(counted.get(name), 0) for name in COUNTED)
    written = count(counted.get("output_tokens"), asked.tokens(len(text.encode())))
    return Answer((Completion(text, finish),), read or asked.input_tokens, written)


def _merged(turns: list[Message]) -> list[dict[str, str]]:
    """Turns of one role in a row become one: user and assistant must alternate."""
    return [
        {"role": role, "content": "\n\n".join(turn.content for turn in run)}
        for role, run in groupby(turns, key=lambda turn: turn.role)
    ]
