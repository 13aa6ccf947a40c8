"""What every process of a run needs to know: JSON in, the same trainer out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from evomerge.connectors.local.training.balance import BalancedBatches
from evomerge.connectors.local.training.blocks import Blocks
from evomerge.connectors.local.training.checkpoints import Checkpoints
from evomerge.connectors.local.training.placement import Placement
from evomerge.connectors.local.training.recipe import Recipe
from evomerge.connectors.local.training.start import load_model, read_optimizer, read_start
from evomerge.connectors.local.training.tokens import TokenCache
from evomerge.connectors.local.training.trainer import Trainer


@dataclass(frozen=True)
class Plan:
    """The training of a run, once its start and its tokens are on the disk.

    Attributes:
        start: folder of the first weights.
        checkpoints: folder of the resumable checkpoints.
        caches: the tokens of each domain.
        recipe: of the training.
        last_step: where it ends.
        threads: CPU threads of each process.
        placement: where it computes.
    """

    start: Path
    checkpoints: Path
    caches: Sequence[TokenCache]
    recipe: Recipe
    last_step: int
    threads: int
    placement: Placement

    def to_json(self) -> str:
        """One line that `from_json` reads."""
        caches = [
            [each.domain, each.corpus_hash, str(each.folder.resolve()), each.dtype.str]
            for each in self.caches
        ]
        places = [str(self.start.resolve()), str(self.checkpoints.resolve())]
        rest = [asdict(self.recipe), self.last_step, self.threads, asdict(self.placement)]
        return json.dumps([*places, caches, *rest])

    @classmethod
    def from_json(cls, line: str) -> Plan:
        """What `to_json` wrote."""
        start, checkpoints, caches, recipe, last_step, threads, placement = json.loads(line)
        return cls(
            Path(start),
            Path(checkpoints),
            [
                TokenCache(domain, known, Path(folder), np.dtype(dtype))
                for domain, known, folder, dtype in caches
            ],
            Recipe(**recipe),
            last_step,
            threads,
            Placement(**placement),
        )

    def trainer(self) -> Trainer:
        """At the latest checkpoint, or at the start.

        Raises:
            TooFewTokensError: a domain does not fill a block.
            BaseFolderError: the first weights cannot be loaded.
            and as for `Trainer`.
        """
        recipe = self.recipe
        blocks = [Blocks(cache, "train", recipe.block_tokens) for cache in self.caches]
        start = read_start(self.start)
        continues = start.policy == "continue"
        return Trainer(
            load_model(self.start),
            BalancedBatches(blocks, recipe.batch_blocks, recipe.seed),
            recipe,
            Checkpoints(self.checkpoints),
            optimizer=read_optimizer(self.start)[0] if continues else {},
            schedule_done=start.schedule_done,
            last_step=self.last_step,
            placement=self.placement,
        )
