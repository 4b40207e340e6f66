"""Figures by site: the table, the page, and what a new site is to expect."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hilum.evaluation import site_pooling
from hilum.scoring.auditing import site_audit
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.scoring.case_scoring import AuditInput, ScoredCases
from hilum.tasks.classification.question import Classification
from hilum.values import Case, Estimate, Geometry, Image

COLUMNS = ["metric", "label", "site", "value", "low", "high", "se", "n", "patients"]
COLUMNS += ["difference", "difference_low", "difference_high", "method"]


def audited(sites: list[str], *, patients_known: bool = True):
    """Cases of two classes that are told apart worse at site d; one site is blank."""
    random = np.random.default_rng(0)
    count = len(sites)
    ill = random.random(count) < 0.5
    noise = random.normal(size=count) * (1 + 2 * (np.array(sites) == "d"))
    chance = 1 / (1 + np.exp(-(3 * ill - 1.5 + noise)))
    words = np.array(["fine", "ill"])
    table = pd.DataFrame(
        {
            "case": [f"c{n}" for n in range(count)],
            "patient": [f"p{n}" for n in range(count)],
            "split": "test",
            "label": "all",
            "brier": (chance - ill) ** 2,
            "reference": words[ill.astype(int)],
            "predicted": words[(chance > 0.5).astype(int)],
            "probability_fine": 1 - chance,
            "probability_ill": chance,
        }
    )
    image = Image(np.zeros((1, 2, 2), np.uint8), Geometry.of_pixels((2, 2)))
    cases = [Case(f"c{n}", f"p{n}", {"image": image}, {}, {"site": site}) for n, site in enumerate(sites)]
    scored = ScoredCases(table, (), task=Classification(("fine", "ill")))
    return site_audit.audit_sites(
        AuditInput(scored, None, cases, 0, patients_known, options=AuditOptions(sites="site"))
    )


@pytest.fixture(scope="module")
def four_sites():
    return audited([*"abcd" * 50, ""])


def estimate_of(row) -> Estimate:
    return Estimate(row.value, row.low, row.high, n=int(row.n), patients=int(row.patients))


def test_the_table_has_every_site_and_the_two_pooled_rows(four_sites):
    table = four_sites.tables["sites.csv"]
    assert list(table) == COLUMNS
    assert table["n"].max() == 200  # the case without a site is nowhere
    for _, rows in table.groupby(["metric", "label"]):
        assert rows["site"].tolist() == ["a", "b", "c", "d", "mean of sites", "a new site"]


def test_pooled_rows_are_those_of_the_sites_above_them(four_sites):
    table = four_sites.tables["sites.csv"]
    rows = [*table[(table["metric"] == "auroc") & (table["label"] == "all")].itertuples()]
    pooled = site_pooling.pool_sites([*map(estimate_of, rows[:4])], ends=(0.0, 1.0))
    assert (rows[4].value, rows[4].low, rows[4].high, rows[4].se) == pytest.approx(
        (pooled.mean.value, pooled.mean.low, pooled.mean.high, pooled.error)
    )
    assert (rows[5].low, rows[5].high) == pytest.approx((pooled.new_site.low, pooled.new_site.high))


def test_the_difference_is_that_from_all_other_sites(four_sites):
    table = four_sites.tables["sites.csv"]
    rows = table[table["label"] == "all"].set_index(["metric", "site"])
    d, brier = rows.loc[("auroc", "d")], rows.loc["brier"]
    assert d["difference_high"] < 0
    rest = brier.loc[list("abc"), "value"].mean()  # as many cases each, and a mean over cases
    assert brier.loc["d", "difference"] == pytest.approx(brier.loc["d", "value"] - rest)


def test_the_note_states_the_range_and_what_a_new_site_is_to_expect(four_sites):
    [note] = four_sites.notes
    assert note.startswith("AUROC by site: ")
    assert "(d) to " in note
    assert "At a new site " in note


def test_two_sites_leave_both_rows_blank_with_the_reason():
    found = audited([*"ad" * 40], patients_known=False)
    last = found.tables["sites.csv"].iloc[-1]
    assert np.isnan(last["value"])
    assert last["low"] is None or np.isnan(last["low"])
    assert "3 are needed" in last["method"]
    assert (found.tables["sites.csv"]["patients"] == 0).all()
    assert "not known: 2 sites with an interval" in found.notes[0]


def test_one_site_that_was_scored_is_no_comparison():
    assert audited(["a"] * 20) is None
