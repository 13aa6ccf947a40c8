"""Slow looks at what a job is made of, each taken once and before the job is created."""

from __future__ import annotations

import asyncio

from evomerge.app.schemas.inputs import JobInputs
from evomerge.app.schemas.spec import MergeJobSpec
from evomerge.app.services.bases import Bases
from evomerge.app.services.fitting import Fitting


class UninspectedError(Exception):
    """These inputs have to be looked at first, outside of any transaction."""

    def __init__(self, inputs: JobInputs) -> None:
        super().__init__("inputs that were not looked at yet")
        self.inputs = inputs


class Inspection:
    """What is known of bases by their files' state, and of datasets by their content."""

    def __init__(self, bases: Bases) -> None:
        self._bases = bases
        self._fitting = Fitting()
        self._looking = asyncio.Lock()

    def passed(self, spec: MergeJobSpec, inputs: JobInputs) -> JobInputs:
        """The inputs with the base's hash fixed. Quick: creation calls it in its transaction.

        Raises:
            UninspectedError: `look` has not seen these yet.
            UnavailableError: the base cannot be read.
        """
        if inputs.seed is not None:
            known: str | None = inputs.seed.content_hash
        elif inputs.base is not None:
            known = self._bases.known_hash(inputs.base)
        else:
            return inputs
        if known is None or not all(
            self._fitting.known(known, spec, dataset) for dataset in inputs.datasets
        ):
            raise UninspectedError(inputs)
        return inputs if inputs.base is None else inputs.model_copy(update={"base_hash": known})

    async def look(self, spec: MergeJobSpec, inputs: JobInputs) -> None:
        """Look at everything that `passed` has to know; one request at a time.

        Raises:
            InvalidRequestError: a row does not fit into the base's context; names its number.
            ConflictError: the file of a dataset is no longer what it was.
            UnavailableError: the base cannot be read.
        """
        async with self._looking:
            await asyncio.to_thread(self._look, spec, inputs)

    def _look(self, spec: MergeJobSpec, inputs: JobInputs) -> None:
        if inputs.seed is not None:
            # The forest was checked when it was made; its worker checks it again.
            base_hash, folder = inputs.seed.content_hash, inputs.seed.path
        elif inputs.base is not None:
            base_hash, folder = self._bases.read_hash(inputs.base), self._bases.folder(inputs.base)
        else:
            return
        for dataset in inputs.datasets:
            if not self._fitting.known(base_hash, spec, dataset):
                self._fitting.check(folder, base_hash, spec, dataset)
