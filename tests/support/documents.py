"""Short texts of topics that share no words but the commonest."""

from __future__ import annotations

import numpy as np

TOPICS = {
    "sea": ("harbour", "tide", "sail", "anchor", "whale", "captain", "deck", "reef"),
    "kitchen": ("flour", "butter", "oven", "knead", "sugar", "pepper", "recipe", "salt"),
    "court": ("judge", "verdict", "appeal", "witness", "clause", "statute", "jury", "oath"),
    "sky": ("planet", "orbit", "comet", "telescope", "galaxy", "eclipse", "meteor", "nebula"),
}
COMMON = ("the", "and", "of", "with", "that", "from", "over", "into")


def documents_of(topic: str, number: int, seed: int = 0, words: int = 30) -> list[str]:
    """Texts of one topic, half of their words common to all."""
    random = np.random.default_rng([seed, *topic.encode()])
    texts = []
    for _ in range(number):
        common = random.choice(COMMON, words // 2)
        own = random.choice(TOPICS[topic], words // 2)
        texts.append(" ".join(np.stack([common, own], axis=1).flatten()))
    return texts
