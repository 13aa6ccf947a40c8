"""Every claim is tried on systems that were measured, and its verdict follows the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks.btm import names
from benchmarks.btm.claims import claims, findings
from benchmarks.btm.contrasts import Measured
from benchmarks.btm.plan import SHARE, SHARES, Settings, plan
from benchmarks.btm.report import report

SETTINGS = Settings(tokens=600_000)
TOKENS = np.full(12, 100.0)


def measured(losses: dict[str, float]) -> Measured:
    """All systems at 3 nats a token, with a little noise, but for those that are named."""
    everything = (*SETTINGS.domains, *SETTINGS.unseen)
    counts = [2, 4, 8]
    all_of_them = [
        *(system(share) for share in SHARES for system in (
            names.ensemble, names.uniform_average, names.posterior_average)),
        *(names.ensemble(SHARE, top_k) for top_k in names.TOP_K),
        *(system(number) for number in counts for system in (names.dense, names.ensemble_of)),
        names.dense(), names.SEED, names.BEST, names.RANDOM,
    ]  # fmt: skip
    generator = np.random.default_rng(1)

    def nats(name: str) -> np.ndarray:
        noise = 0.1 * generator.standard_normal((3, len(TOKENS)))
        return TOKENS * losses.get(name, 3.0) + noise

    return Measured(
        dict.fromkeys(everything, TOKENS),
        {name: {domain: nats(name) for domain in everything} for name in all_of_them},
    )


def verdicts(losses: dict[str, float]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for one in findings(measured(losses), SETTINGS, resamples=400):
        found.setdefault(one.claim.letter, set()).add(one.verdict)
    return found


def test_there_is_a_claim_for_every_letter() -> None:
    assert sorted({claim.letter for claim in claims(SETTINGS)}) == list("abcdefg")


def test_what_the_paper_reports_is_found() -> None:
    paper = {
        names.ensemble(): 2.5,
        **{names.ensemble(SHARE, k): 2.5 for k in names.TOP_K},
        names.posterior_average(): 2.7,
        names.uniform_average(): 2.9,
        names.uniform_average(0.0): 7.0,
        names.ensemble_of(2): 2.9,
        names.ensemble_of(4): 2.7,
        names.ensemble_of(8): 2.5,
    }
    assert set().union(*verdicts(paper).values()) == {"found"}


def test_the_reverse_is_not_found() -> None:
    worse = {names.ensemble(): 3.5, names.posterior_average(): 3.5}
    found = verdicts(worse)
    assert [found[letter] for letter in "abcde"] == [{"not found"}] * 5
    assert verdicts({names.ensemble(SHARE, 1): 3.02})["f"] == {"found", "not found"}


def test_no_difference_is_unclear() -> None:
    assert verdicts({})["a"] == {"unclear"}


def test_the_report_has_every_claim_and_every_domain() -> None:
    both = measured({names.dense(): np.log(7.0), names.ensemble(): np.log(5.0)})
    found = findings(both, SETTINGS, resamples=400)
    text = "\n".join(report(both, found, SETTINGS, plan(SETTINGS, 1)))
    for one in found:
        assert f"({one.claim.letter}) {one.claim.text}: " in text
        assert one.verdict in text
    for name in (*SETTINGS.domains, *SETTINGS.unseen):
        assert name in text
    row = next(line for line in text.splitlines() if line.startswith("dense  "))
    assert [float(cell) for cell in row.split()[1:]] == pytest.approx([7.0] * 5, abs=0.01)
