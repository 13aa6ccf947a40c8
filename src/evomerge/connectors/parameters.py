"""Parameters that a model refuses: read from its 400, left out from then on."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from evomerge.connectors.client import Call
from evomerge.connectors.errors import QuestionRefusedError
from evomerge.connectors.expert import Capabilities
from evomerge.connectors.habits import Habits
from evomerge.connectors.question import Answer

# Without these an answer is drawn otherwise, yet still answers the question. The rest (n, echo,
# logprobs) are the question: without them it is refused.
OPTIONAL = frozenset({"temperature", "top_p", "seed", "stop", "stop_sequences", "cache_prompt"})
LIMITS = ("max_tokens", "max_completion_tokens")

_NAME = r"[`'\"]?(?P<name>[a-z][a-z0-9_]*)[`'\"]?"
_PATTERNS = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        # OpenAI: Unsupported parameter: 'max_tokens' is not supported with this model. Also
        # "Unsupported value: 'temperature' does not support 0 with this model."
        rf"unsupported (?:parameter|value)s?:? {_NAME}",
        # OpenAI: Unrecognized request argument supplied: seed
        rf"(?:unrecognized|unknown|unexpected|invalid) (?:request )?"
        rf"(?:argument|parameter|field|keyword argument)s?(?: supplied)?:? {_NAME}",
        # serde (TGI, LoRAX, text-embeddings): unknown field `seed`, expected one of
        rf"unknown field {_NAME}",
        # pydantic (vLLM, llama-cpp-python): body.seed: Extra inputs are not permitted
        r"(?:body\.)?(?P<name>[a-z][a-z0-9_]*): extra inputs are not permitted",
        # Anthropic, OpenRouter, llama.cpp: `temperature` is deprecated / not supported for ...
        rf"{_NAME}(?: parameter)? (?:is|are) (?:not |un|no longer )(?:yet )?(?:currently )?"
        rf"(?:supported|allowed|permitted|available)",
        rf"{_NAME}(?: parameter)? is deprecated",
        rf"does not support (?:the )?(?:parameter )?{_NAME}",
        rf"{_NAME} (?:cannot|must not|can not) (?:both )?be (?:used|set|specified|given)",
    )
)
_REFUSING = re.compile(
    r"(?:un|not )support|unknown|unrecogni[sz]ed|unexpected|not (?:permitted|allowed|available)"
    r"|deprecated",
    re.IGNORECASE,
)


def refused_parameter(error: QuestionRefusedError, body: Mapping[str, Any]) -> str | None:
    """The parameter of `body` that a 400 says the model does not take; None if it says no such."""
    for pattern in _PATTERNS:
        found = pattern.search(error.reason)
        if found is not None and found["name"] in body:
            return found["name"]
    # It names the parameter beside the text: then the words need only say that it is not taken.
    named = error.param in body and _REFUSING.search(error.reason) is not None
    return error.param if named else None


def without(body: Mapping[str, Any], refused: set[str]) -> dict[str, Any]:
    """A body without what is refused; the limit on the answer goes by its other name instead."""
    kept = {name: value for name, value in body.items() if name not in refused}
    for name, other in (LIMITS, LIMITS[::-1]):
        if name in body and name in refused and other not in refused:
            kept[other] = body[name]
    return kept


async def adapting(
    call: Call,
    whole: dict[str, Any],
    capabilities: Capabilities,
    habits: Habits,
    send: Callable[[dict[str, Any]], Awaitable[Answer]],
) -> Answer:
    """Send a body without what the model refuses, learning from each 400 what that is.

    Raises:
        QuestionRefusedError: what is refused cannot be left out; its `param` names it.
        AskError: any other reason.
    """
    while True:
        refused = habits.refused(call.endpoint, capabilities)
        fields = without(whole, refused)
        try:
            return await send(fields)
        except QuestionRefusedError as error:
            name = refused_parameter(error, fields)
            if name is None:
                raise
            if name not in OPTIONAL and (name not in LIMITS or refused & set(LIMITS)):
                error.param = name
                raise
            habits.learn(call.endpoint, name)
