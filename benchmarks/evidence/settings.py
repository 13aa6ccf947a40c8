"""The paper's settings: who is in the pool, and which tasks the merged model is for.

Who takes part was chosen with the pool, before anything was merged. Defaults may be chosen by what
is found on the choosing targets, never by the reported ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from benchmarks.evidence.pools import Pool

Setting = Literal["out-of-domain", "in-domain", "robustness", "ablations"]
SETTINGS: tuple[Setting, ...] = get_args(Setting)
ALL = "all tasks"


@dataclass(frozen=True)
class Case:
    """One thing to merge for.

    Attributes:
        setting: to which it belongs.
        name: the target, or `ALL`.
        experts: in the pool, in order.
        tasks: whose mean losses make the objective, each counting the same.
    """

    setting: Setting
    name: str
    experts: tuple[str, ...]
    tasks: tuple[str, ...]


def cases(pool: Pool, setting: Setting) -> list[Case]:
    """Everything that the setting measures.

    out-of-domain: every reported target, with all experts that it may use. in-domain: one expert a
    task, one model for all. robustness: the same with experts of other tasks beside them.
    ablations: as out-of-domain, on the choosing targets, because what they say chooses defaults.
    """
    members = pool.members
    if setting == "out-of-domain":
        return _without_own(pool, setting, members.reported)
    if setting == "ablations":
        return _without_own(pool, setting, members.choosing)
    more = members.distractors if setting == "robustness" else ()
    return [Case(setting, ALL, (*members.in_domain, *more), members.in_domain)]


def _without_own(pool: Pool, setting: Setting, targets: Sequence[str]) -> list[Case]:
    usable = [name for name in pool.experts if name not in pool.reserved]
    return [
        Case(setting, target, tuple(name for name in usable if name != target), (target,))
        for target in targets
    ]
