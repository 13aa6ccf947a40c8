"""Which documents train, which develop and which test: each document's content decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from evomerge.evaluation.corpus.errors import ShareError

Part: TypeAlias = Literal["train", "dev", "test"]
PARTS: tuple[Part, ...] = ("train", "dev", "test")


@dataclass(frozen=True)
class Shares:
    """What shares of the documents are set aside.

    A document's place is the first 64 bits of the hash of its text, read as a fraction u:
    u < test is a test document, the next `dev` of the line are development documents, the rest
    train. So a document never changes its part when others come or go, its duplicates share its
    part in every domain, and the shares hold on average only.

    Attributes:
        dev: share of the development documents, 0 <= dev < 1.
        test: share of the test documents, 0 <= test < 1.

    Raises:
        ShareError: a share is out of range, or both leave nothing to train on.
    """

    dev: float = 0.05
    test: float = 0.05

    def __post_init__(self) -> None:
        for field, value in (("dev_share", self.dev), ("test_share", self.test)):
            if not 0 <= value < 1:
                raise ShareError(field, value, "must be at least 0 and below 1")
        if self.dev + self.test >= 1:
            raise ShareError(
                "dev_share", self.dev, f"leaves nothing to train on beside test_share={self.test}"
            )

    def part(self, digest: bytes) -> Part:
        """The part of the document with this SHA-256 digest."""
        place = int.from_bytes(digest[:8], "big") / 2**64
        if place < self.test:
            return "test"
        return "dev" if place < self.test + self.dev else "train"
