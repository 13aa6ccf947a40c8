"""From a server's JSON to evidence, in the shapes that servers have."""

from __future__ import annotations

from typing import Any

import numpy as np
from tests.support.outputs import ALTERNATIVES, ECHOING, expert

from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.openai_answer import Asked, read_answer
from evomerge.connectors.output.evidence import option_log_probs
from evomerge.connectors.output.questions import questions
from evomerge.connectors.output.task import Task
from evomerge.evaluation.example import Example
from evomerge.evaluation.objective import FloatArray

ROW = Example("Is it?", "no", ("yes", "no"))
TASK = Task("choice", "cross_entropy")


def evidence(who: ApiExpert, body: dict[str, Any]) -> FloatArray | None:
    (question,) = questions(who, ROW, TASK)
    answer = read_answer(Asked.of(question, who.capabilities), body)
    return option_log_probs(who, ROW, [answer], TASK)


def test_chat_alternatives() -> None:
    tops = [("B", -0.2), ("A", -1.9), ("b", -4.0), ("The", -5.0)]
    body = {
        "choices": [
            {
                "index": 0,
                "finish_reason": "length",
                "message": {"role": "assistant", "content": "B"},
                "logprobs": {
                    "content": [
                        {
                            "token": "B",
                            "logprob": -0.2,
                            "bytes": [66],
                            "top_logprobs": [
                                {"token": token, "logprob": logprob, "bytes": None}
                                for token, logprob in tops
                            ],
                        }
                    ]
                },
            }
        ],
        "usage": {"prompt_tokens": 40, "completion_tokens": 1},
    }
    scores = evidence(expert(capabilities=ALTERNATIVES), body)
    np.testing.assert_allclose(scores, [-1.9, np.logaddexp(-0.2, -4.0)])  # type: ignore[arg-type]


def test_an_echo_in_parallel_lists_in_any_order() -> None:
    def choice(index: int, option: str, logprob: float) -> dict[str, Any]:
        return {
            "index": index,
            "text": f"Is it? {option}",
            "finish_reason": "length",
            "logprobs": {
                "tokens": ["Is", " it?", f" {option}"],
                "token_logprobs": [None, -7.0, logprob],
                "top_logprobs": [None, {" it": -1.0}, {" so": -0.1}],
                "text_offset": [0, 2, 6],
            },
        }

    body = {"choices": [choice(1, "no", -0.5), choice(0, "yes", -2.0)]}
    scores = evidence(expert(capabilities=ECHOING), body)
    np.testing.assert_allclose(scores, np.array([-2.0 / 4, -0.5 / 3]) * 3.5)  # type: ignore[arg-type]


def test_prompt_logprobs_by_position() -> None:
    def choice(index: int, option: str, logprob: float) -> dict[str, Any]:
        return {
            "index": index,
            "text": "",
            "finish_reason": "length",
            "prompt_logprobs": [
                None,
                {"7": {"logprob": -7.0, "rank": 9, "decoded_token": " it?"}},
                {
                    "8": {"logprob": logprob, "rank": 2, "decoded_token": f" {option}"},
                    "9": {"logprob": -0.1, "rank": 1, "decoded_token": " so"},
                },
            ],
        }

    body = {"choices": [choice(0, "yes", -2.0), choice(1, "no", -9999.0)]}
    scores = evidence(expert(capabilities=ECHOING), body)
    np.testing.assert_allclose(scores, np.array([-2.0 / 4, -30 / 3]) * 3.5)  # type: ignore[arg-type]
