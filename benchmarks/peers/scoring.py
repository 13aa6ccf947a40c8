"""One scorer for all: plain transformers and PEFT over a stored model, in float32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.peers.task import EncodedRow, Report
from numpy.typing import NDArray
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from evomerge.evaluation.intervals import weighted_mean
from evomerge.evaluation.significance import paired_p_value


@dataclass(frozen=True)
class Losses:
    """Of one model on the held-out rows.

    Attributes:
        rows: (n,) float64, mean nats a token of each row's answer.
        tokens: (n,) float64, how many tokens those are.
    """

    rows: NDArray[np.float64]
    tokens: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Nats a token."""
        return weighted_mean(self.rows, self.tokens)

    def p_value(self, other: Losses, seed: int) -> float | None:
        """Of the paired test against another model on the same rows."""
        return paired_p_value(self.rows, other.rows, self.tokens, seed=seed)


class UnreadableModelError(Exception):
    """What a peer stored cannot be loaded as what it says it is."""


def score_report(report: Report, base: Path, rows: Sequence[EncodedRow]) -> Losses:
    """What a peer's model gives to the held-out rows.

    Raises:
        UnreadableModelError: its folder holds no model of that kind.
    """
    adapter = report.model if report.kind == "adapter" else None
    try:
        return score(base if adapter else report.model, rows, adapter=adapter)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UnreadableModelError(f"its {report.kind} cannot be loaded: {error}") from error


def score(folder: Path, rows: Sequence[EncodedRow], *, adapter: Path | None = None) -> Losses:
    """The losses of a stored model, with an adapter over it if there is one.

    Raises:
        OSError, ValueError, RuntimeError, SafetensorError: it cannot be loaded.
    """
    disable_progress_bar()
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    model = model.float().eval()
    with torch.inference_mode():
        losses = [float(_answer_loss(model, row)) for row in rows]
    tokens = np.array([row.scored for row in rows], dtype=np.float64)
    return Losses(np.array(losses, dtype=np.float64), tokens)


def _answer_loss(model: Any, row: EncodedRow) -> Tensor:
    """Mean negative log-likelihood of a row's scored tokens; one row, so nothing is padded."""
    tokens = torch.tensor([row.tokens])
    logits = model(input_ids=tokens).logits[0, row.start - 1 : -1].double()
    return torch.nn.functional.cross_entropy(logits, tokens[0, row.start :])
