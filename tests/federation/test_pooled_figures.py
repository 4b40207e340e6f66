"""Figures of sites from sums alone, beside those of all cases together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hilum.evaluation import Metrics, case_tables
from hilum.evaluation.intervals import Resampling
from hilum.federation import pooled_figures
from hilum.federation.pooled_figures import SiteScores

RNG = np.random.default_rng(3)


def scored(site, patients, shift):
    """Cases of two structures, two cases a patient, with voxels that were counted."""
    rows = []
    for n in range(patients):
        for part in range(2):
            for label, size in (("shell", 400), ("core", 60)):
                reference, predicted = (int(one) for one in RNG.integers(size // 2, size, 2))
                both = int(min(reference, predicted) * min(1.0, RNG.uniform(0.5, 0.9) + shift))
                rows.append(
                    {
                        **{"case": f"{site}{n}.{part}", "patient": f"{site}{n}", "split": "test", "label": label},
                        **{"dice": 2 * both / (reference + predicted), "found": 1.0, "voxels_both": both},
                        **{"voxels_predicted": predicted, "voxels_reference": reference},
                    }
                )
    return case_tables.check_table(table := pd.DataFrame(rows)) or table


def figures(table, seed):
    units = {"dice": "", "found": ""}
    return [*case_tables.mean_rows(table, units, seed=seed), *case_tables.pooled_rows(table, seed=seed)]


@pytest.fixture(scope="module")
def pooled():
    tables = {"a": scored("a", 30, 0.1), "b": scored("b", 12, 0.0), "c": scored("c", 5, -0.2)}
    sites = {}
    for site, table in tables.items():
        rows = figures(table, Resampling(0, keeps_recipe=True))
        sums = pooled_figures.draws_of_site(rows, np.random.default_rng(RNG.integers(99)))
        sites[site] = SiteScores(rows, {str(number): one for number, one in sums.items()})
    rows, by_site = pooled_figures.pool_scores(sites, Metrics())
    return pd.concat(tables.values(), ignore_index=True), rows, by_site


def test_figures_of_sums_are_those_of_all_cases_together(pooled):
    table, rows, _ = pooled
    together = {(row.metric, row.label): row.estimate for row in figures(table, 0)}
    assert len(rows) == len(together) == 12
    for row in rows:
        expected, found = together[row.metric, row.label], row.estimate
        assert found.value == pytest.approx(expected.value, rel=1e-12)
        assert (found.n, found.patients) == (expected.n, expected.patients)
        if row.metric == "dice":
            assert found.low == pytest.approx(expected.low, abs=0.02)
            assert found.high == pytest.approx(expected.high, abs=0.02)


def test_a_figure_that_never_varies_has_an_exact_bound(pooled):
    found = next(row.estimate for row in pooled[1] if (row.metric, row.label) == ("found", "core"))
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(0.025 ** (1 / 47))  # Clopper and Pearson, 47 of 47 patients


def test_the_table_of_sites_leaves_small_counts_blank(pooled):
    table = pooled_figures.sites_table(pooled[2], 10)
    dice = table[(table["metric"] == "dice") & (table["label"] == "core")].set_index("site")
    assert dice.index.tolist() == ["a", "b", "c", "mean of sites", "a new site"]
    assert np.isnan(dice.loc["c", "patients"])
    assert dice.loc["b", "patients"] == 12
    assert dice.loc["a new site", "low"] < dice.loc["mean of sites", "low"]
