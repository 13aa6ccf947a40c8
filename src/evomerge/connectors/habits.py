"""What each model was seen to refuse, remembered for the life of the process."""

from __future__ import annotations

from dataclasses import dataclass, field

from evomerge.connectors.expert import Capabilities
from evomerge.connectors.question import Endpoint


@dataclass
class Habits:
    """What each model was seen to refuse, for the life of the process."""

    _refused: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    def refused(self, endpoint: Endpoint, capabilities: Capabilities | None = None) -> set[str]:
        """Parameters never to be sent to this model."""
        known = self._refused.get((endpoint.base_url, endpoint.model), frozenset())
        return {*known, *(capabilities.unsupported if capabilities is not None else ())}

    def learn(self, endpoint: Endpoint, parameter: str) -> None:
        """Never send it again."""
        where = (endpoint.base_url, endpoint.model)
        self._refused[where] = self._refused.get(where, frozenset()) | {parameter}
