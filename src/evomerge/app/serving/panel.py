"""The experts of an output merge: the kept ones are asked, and it is told who failed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.app.outputs import StoredOutput
from evomerge.app.serving.errors import ModelUnavailableError
from evomerge.app.serving.failures import reason
from evomerge.connectors.errors import AskError
from evomerge.connectors.expert import ApiExpert
from evomerge.connectors.output.errors import ExpertUnableError
from evomerge.connectors.output.questions import questions
from evomerge.connectors.question import Answer
from evomerge.connectors.registry import Asker
from evomerge.evaluation.example import Example

_SILENT = "its answer does not say what was asked"


@dataclass(frozen=True)
class Heard:
    """What one expert answered to one example; None in the place of what failed."""

    answers: tuple[Answer | None, ...] = ()
    failure: str | None = None


class Panel:
    """Asks as the search asked.

    Args:
        stored: the merge, its task and its experts.
        asker: asks them.
    """

    def __init__(self, stored: StoredOutput, asker: Asker) -> None:
        self.merge = stored.merge
        self.task = stored.task
        self.experts = [one.expert for one in stored.experts]
        self._asker = asker

    async def ask(self, example: Example) -> list[Heard]:
        """Of every expert, all at once; nothing of those that the merge drops."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._hear(expert, example)) if keep else None
                for expert, keep in zip(self.experts, self.merge.kept.tolist(), strict=True)
            ]
        return [Heard() if task is None else task.result() for task in tasks]

    async def _hear(self, expert: ApiExpert, example: Example) -> Heard:
        async def ask_one(number: int) -> Answer | AskError:
            try:
                return await self._asker.ask(asked[number], expert.capabilities)
            except AskError as error:
                return error

        try:
            asked = questions(expert, example, self.task)
        except ExpertUnableError as error:
            return Heard(failure=f"it {error.reason}")
        said = await asyncio.gather(*map(ask_one, range(len(asked))))
        failures = [one for one in said if isinstance(one, AskError)]
        answers = tuple(None if isinstance(one, AskError) else one for one in said)
        if len(failures) == len(said):
            return Heard(failure=reason(failures[0]))
        return Heard(answers)

    def failed(self, heard: Sequence[Heard], silent: Sequence[str] = ()) -> dict[str, str]:
        """Why each kept expert without a part in an answer has none.

        Args:
            silent: names of those whose answers are of no use.
        """
        named = zip(self.merge.experts, heard, strict=True)
        failures = {name: one.failure for name, one in named if one.failure is not None}
        return dict.fromkeys(silent, _SILENT) | failures

    def nobody(self, failed: Mapping[str, str]) -> ModelUnavailableError:
        """What to raise where no expert is left."""
        why = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        return ModelUnavailableError(f"no expert answers ({why or 'none is kept'})", param="model")

    def about(self) -> dict[str, Any]:
        """The report before any answer."""
        merge = self.merge
        pairs = zip(merge.experts, merge.kept.tolist(), strict=True)
        about: dict[str, Any] = {
            "space": "output",
            "kind": merge.kind,
            "asked": [name for name, keep in pairs if keep],
            "failed": [],
            "answers": [],
        }
        return about if merge.threshold is None else {**about, "threshold": merge.threshold}

    def tell(self, report: dict[str, Any], failed: Mapping[str, str], **more: Any) -> None:
        """Add the next answer to a report, with the weights that it was made by."""
        index = len(report["answers"])
        report["failed"] += [
            {"expert": name, "index": index, "reason": reason} for name, reason in failed.items()
        ]
        report["answers"].append({"index": index, "weights": self._weights(failed), **more})

    def _weights(self, failed: Mapping[str, str]) -> dict[str, float]:
        """Of those that spoke, as shares: positive ones add up to 1."""
        merge = self.merge
        rows = zip(merge.experts, merge.beta, merge.kept.tolist(), strict=True)
        spoke = {name: beta for name, beta, keep in rows if keep and name not in failed}
        whole = sum(beta for beta in spoke.values() if beta > 0) or 1.0
        return {name: beta / whole for name, beta in spoke.items()}
