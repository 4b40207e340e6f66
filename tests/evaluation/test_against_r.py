"""Our statistics beside the values that R gave (`bench/against_r.py`).

pROC 1.18, rms 6.5, psych 2.2.9, MatchIt 4.5.1, R 4.2.2. Without the intervals of ICC(2) and ICC(2k), which are others.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
ICC = [
    *(0.165741768405, -0.132932324875, 0.722560062328, 1.79467849224, 0.164768808345),
    *(0.289763779528, 11.0272479564, 0.000134566516484),
    *(0.714840714841, 0.342464765034, 0.945858259955, 11.0272479564, 0.000134566516484),
    *(0.442797133679, -0.884442155238, 0.912415420341, 1.79467849224, 0.164768808345),
    *(0.620050547599, 11.0272479564, 0.000134566516484),
    *(0.909315542377, 0.675674713816, 0.985891678169, 11.0272479564, 0.000134566516484),
]
R = {
    "delong": [2.20898359144, 0.0271757822292, 0.0104061769565, 0.174214419249],
    "delong_unpaired": [0.15625914888, 0.876115216618],
    "slope": [1.00113289342],
    "hosmer_lemeshow": [7.12288075892, 0.713795572445],
    "mcnemar": [0.142857142857, 0.705456986111],
    "mcnemar_exact": [0.359283447266],
    "wilcoxon_exact": [0.000850677490234, 0.119910982776],
    "icc": ICC,
    "holm": [0.006, 0.06, 0.12, 0.12, 0.4, 0.7],
    "benjamini_hochberg": [0.006, 0.036, 0.06, 0.06, 0.24, 0.7],
    "propensity": [0.350043308096, 0.397232419822, 0.353983438148, 0.513937047678, 0.500642162772],
    "matched": [
        *(12, 60, 18, 74, 61, 108, 83, 106, 33, 42, 28, 71, 29, 80, 81, 84, 26, 32, 94, 5, 50),
        *(111, 35, 9, 2, 58, 23, 54, 45, 104, 41, 93, 91, 92, 112, 15, 4, 107, 65, 82, 51, 16),
    ],
}


WITHOUT_PATIENTS = ("icc", "holm", "benjamini_hochberg")


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("against_r")


@pytest.fixture(scope="module")
def ours(bench, corpus):
    return bench.ours(bench.cases(corpus))


@pytest.mark.parametrize("name", WITHOUT_PATIENTS)
def test_a_statistic_of_a_small_table_is_that_of_r(bench, name):
    assert bench.of_small_tables()[name] == pytest.approx(R[name], abs=1e-6)


@pytest.mark.parametrize("name", [name for name in R if name not in WITHOUT_PATIENTS])
def test_a_statistic_of_patients_is_that_of_r(ours, name):
    assert ours[name] == pytest.approx(R[name], abs=1e-6)


def test_the_typical_difference_of_many_pairs_is_that_which_r_searches_to_1e_4(ours):
    assert ours["wilcoxon"] == pytest.approx([4.43921883497e-14, 0.112389505928], abs=1e-4)
