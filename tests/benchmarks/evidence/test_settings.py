"""Who takes part in each setting."""

from __future__ import annotations

from benchmarks.evidence.settings import ALL, cases
from tests.support.evidence import MEMBERS, pool


def test_no_targets_own_expert_is_in_an_out_of_domain_pool() -> None:
    found = cases(pool(), "out-of-domain")
    assert [case.name for case in found] == list(MEMBERS.reported)
    for case in found:
        assert case.tasks == (case.name,)
        assert set(case.experts) == {"date-a", "unit-a", "unit-b", "number-c"}


def test_ablations_are_measured_on_targets_that_are_not_reported() -> None:
    names = {case.name for case in cases(pool(), "ablations")}
    assert names == set(MEMBERS.choosing)
    assert not names & {case.name for case in cases(pool(), "out-of-domain")}


def test_in_domain_has_one_expert_a_task_and_one_model_for_all() -> None:
    (case,) = cases(pool(), "in-domain")
    assert (case.name, case.experts, case.tasks) == (ALL, MEMBERS.in_domain, MEMBERS.in_domain)


def test_robustness_adds_distractors_and_no_task() -> None:
    (case,) = cases(pool(), "robustness")
    assert case.experts == (*MEMBERS.in_domain, *MEMBERS.distractors)
    assert case.tasks == MEMBERS.in_domain
