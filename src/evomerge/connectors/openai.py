"""Every server that speaks OpenAI's chat completions or completions.

vLLM, TGI, llama.cpp, llama-cpp-python, Ollama, LM Studio, OpenRouter and the hosted ones; where
they differ, what the probe found decides (`Capabilities`), and docs/connectors.md tells of it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from evomerge.connectors.client import Call, Caller, Hook
from evomerge.connectors.errors import QuestionRefusedError
from evomerge.connectors.expert import Capabilities
from evomerge.connectors.openai_answer import Asked, read_answer
from evomerge.connectors.parameters import adapting
from evomerge.connectors.question import Answer, Endpoint, Question

UNPROBED = Capabilities()


@dataclass
class OpenAIConnector:
    """Asks OpenAI-compatible servers."""

    caller: Caller

    def refused(self, endpoint: Endpoint) -> set[str]:
        """Parameters that this model was seen to refuse."""
        return self.caller.habits.refused(endpoint)

    async def ask(
        self,
        question: Question,
        capabilities: Capabilities = UNPROBED,
        on_attempt: Hook | None = None,
    ) -> Answer:
        """See `Connector.ask`. What was not found by a probe is done in several requests, or
        refused where it cannot be.

        Raises:
            AskError: there is no answer.
        """
        call = Call(question.endpoint, on_attempt)
        _refuse_impossible(call, question)
        answers = [
            await self._one(call, part, capabilities) for part in parts(question, capabilities)
        ]
        return Answer(
            tuple(completion for answer in answers for completion in answer.completions),
            sum(answer.input_tokens for answer in answers),
            sum(answer.output_tokens for answer in answers),
            call.requests,
            call.lost,
        )

    async def _one(self, call: Call, question: Question, capabilities: Capabilities) -> Answer:
        whole = body(question, capabilities)
        path = "/chat/completions" if question.interface == "chat" else "/completions"
        asked = Asked.of(question, capabilities)
        tokens = asked.input_tokens + question.most_output_tokens

        async def send(fields: dict[str, Any]) -> Answer:
            return await self.caller.post(
                call, path, fields, read=lambda said: read_answer(asked, said), tokens=tokens
            )

        return await adapting(call, whole, capabilities, self.caller.habits, send)


def parts(question: Question, capabilities: Capabilities) -> list[Question]:
    """One question as the questions that the server takes in one request each, in order."""
    many = question.samples > 1 and not capabilities.samples
    by_prompt = [question]
    if len(question.prompts) > 1 and (many or not capabilities.batches):
        by_prompt = [replace(question, prompts=(prompt,)) for prompt in question.prompts]
    if not many:
        return by_prompt
    return [
        replace(part, samples=1, sample=question.sample + number)
        for part in by_prompt
        for number in range(question.samples)
    ]


def body(question: Question, capabilities: Capabilities) -> dict[str, Any]:
    """The request's JSON; nothing that is left to the server is named."""
    sampling = question.sampling
    most = sampling.max_tokens if capabilities.zero_tokens else max(1, sampling.max_tokens)
    fields: dict[str, Any] = {"model": question.endpoint.model}
    if question.interface == "chat":
        fields["messages"] = [
            {"role": message.role, "content": message.content} for message in question.messages
        ]
        if question.alternatives is not None:
            fields["logprobs"] = True
            if question.alternatives:
                fields["top_logprobs"] = question.alternatives
    else:
        prompts = question.prompts
        fields["prompt"] = prompts[0] if len(prompts) == 1 else list(prompts)
        if question.alternatives is not None or question.echo:
            # 0 means the chosen token's number alone, but some servers take it for no numbers.
            fields["logprobs"] = max(1, question.alternatives or 0)
        if question.echo:
            fields["echo"] = True
    fields[capabilities.token_limit] = most
    fields["temperature"] = sampling.temperature
    if sampling.top_p is not None:
        fields["top_p"] = sampling.top_p
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        # The same seed would draw the same sample again.
        fields["seed"] = sampling.seed + question.sample
    if question.samples > 1:
        fields["n"] = question.samples
    fields.update(json.loads(question.extra))
    return fields


def _refuse_impossible(call: Call, question: Question) -> None:
    reason, param = None, None
    if question.echo and question.interface == "chat":
        reason, param = "chat gives no log-probabilities of the prompt", "echo"
    elif not question.messages and not question.prompts:
        reason, param = "there is nothing to answer", "prompt"
    if reason is not None:
        raise QuestionRefusedError(call.who, reason, param=param, requests=0)
