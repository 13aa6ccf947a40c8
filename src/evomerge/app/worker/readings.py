"""Input tokens as servers count them, beside what was estimated from the bytes of the texts."""

from __future__ import annotations

from dataclasses import dataclass, field

from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.question import Answer, Endpoint, Question

# Texts may have more tokens a byte than the one that the probe counted ...
UNREAD_MARGIN = 1.25
# ... and the next one somewhat more than any before it.
READ_MARGIN = 1.05
ENOUGH = 20


@dataclass
class _Reading:
    answers: int = 0
    counted: int = 0
    estimated: int = 0
    highest: float = 0.0


@dataclass
class Readings:
    """What the answers so far tell of the texts of one job, by server and model.

    The probe's text is English prose: names and digits have more tokens a byte than it foresees.
    """

    _by_model: dict[tuple[str, str], _Reading] = field(default_factory=dict)

    def see(self, question: Question, expert: ApiExpert, answer: Answer) -> None:
        """Learn from one answer."""
        estimated = read(question, expert)
        if not estimated or not answer.input_tokens:
            return
        one = self._by_model.setdefault(_model(question.endpoint), _Reading())
        one.answers += 1
        one.counted += answer.input_tokens
        one.estimated += estimated
        one.highest = max(one.highest, answer.input_tokens / estimated)

    def scale(self, endpoint: Endpoint) -> float | None:
        """Counted tokens by estimated one; None before the first answer."""
        one = self._by_model.get(_model(endpoint))
        return None if one is None else one.counted / one.estimated

    def margin(self, endpoint: Endpoint) -> float:
        """What an estimate is multiplied with, to be no less than what will be counted."""
        one = self._by_model.get(_model(endpoint), _Reading())
        if one.answers >= ENOUGH:
            return READ_MARGIN * one.highest
        return UNREAD_MARGIN * max(1.0, one.highest)


def read(question: Question, expert: ApiExpert) -> int:
    """Input tokens of a question, estimated: where draws go one by one, each reads it anew."""
    draws = 1 if expert.capabilities.samples else question.samples
    return draws * expert.input_tokens(question)


def _model(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.base_url, endpoint.model
