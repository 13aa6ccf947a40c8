"""Who takes part in each setting: chosen before any merge was seen, and never changed after."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Members:
    """Names of tasks.

    Attributes:
        reported: out-of-domain targets whose results are reported; nothing is chosen on them.
        choosing: out-of-domain targets on which defaults and hyper-parameters are chosen.
        in_domain: tasks whose experts are merged into one model for all of them.
        distractors: experts of other tasks that are added to those.

    No target's own expert is in the pool of any target.
    """

    reported: tuple[str, ...]
    choosing: tuple[str, ...]
    in_domain: tuple[str, ...]
    distractors: tuple[str, ...]

    @property
    def targets(self) -> tuple[str, ...]:
        """Both sorts of out-of-domain targets."""
        return self.reported + self.choosing

    @property
    def everyone(self) -> tuple[str, ...]:
        """All of them."""
        return self.targets + self.in_domain + self.distractors


FULL = Members(
    reported=("number-pt", "date-it", "country-es", "unit-nl", "money-sk", "ago-sv"),
    choosing=("language-it", "span-pt", "amount-es", "currency-fr", "number-da", "ago-cs"),
    in_domain=(
        "number-fr",
        "date-de",
        "language-es",
        "country-pl",
        "money-it",
        "unit-sv",
        "amount-ro",
        "span-nl",
    ),
    distractors=(
        "character-hangul",
        "character-cyrillic",
        "sound-english",
        "stress-english",
        "emoji-de",
    ),
)
QUICK = Members(
    reported=("number-pt", "date-it"),
    choosing=("ago-es", "unit-it"),
    in_domain=("number-it", "date-es", "unit-de"),
    distractors=("ago-de", "number-de"),
)
