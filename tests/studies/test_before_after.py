"""A series before and after a change: its size, and segmented regression with autocorrelation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.linalg import toeplitz
from statsmodels.regression.linear_model import GLS

import hilum
from hilum.errors import DatasetError, UsageError
from hilum.studies import before_after


def simulated_series(points: int, after: int, level: float, share: float = 0.4, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    noise = np.zeros(points)
    for point in range(1, points):
        noise[point] = share * noise[point - 1] + random.normal()
    return 20 + 0.1 * np.arange(points) + level * (np.arange(points) >= after) + noise


def test_the_fit_is_that_of_generalised_least_squares_with_the_same_autocorrelation():
    values = simulated_series(60, 30, -3.0)
    fit = before_after.fit_segments(values, 30, season=12)
    table = before_after.segment_columns(60, 30, 12)
    peer = GLS(values, table, sigma=toeplitz(fit.correlation ** np.arange(60))).fit()
    np.testing.assert_allclose([row["value"] for row in fit.table], peer.params, rtol=1e-8)
    free = 60 - table.shape[1]
    reach = [(row["high"] - row["value"]) for row in fit.table]
    ratio = np.array(reach) / peer.bse / np.sqrt(free / (free - 1))
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-8)
    assert 0.1 < fit.correlation < 0.7


def test_intervals_hold_the_planted_change_in_about_95_of_100_series():
    held = 0
    for seed in range(200):
        row = before_after.fit_segments(simulated_series(48, 24, -2.0, seed=seed), 24).table[2]
        held += row["low"] <= -2.0 <= row["high"]
    assert held >= 180  # 190 are expected; 180 or fewer come once in 100 draws


def test_the_power_is_the_share_of_simulated_series_that_find_the_change():
    size = hilum.study_size("before-after", assignments={"level": 1.5, "autocorrelation": 0.3}, simulate=1000)
    assert size.simulated is not None and size.power is not None
    assert abs(size.simulated.value - size.power) < 0.04
    assert "points in time" in repr(size)
    shorter = hilum.study_size("before-after", assignments={"level": 1.5, "autocorrelation": 0.0})
    assert shorter.n < size.n


def test_a_table_of_months_is_read_in_the_order_of_time_and_reported(tmp_path, cli):
    values = simulated_series(36, 18, -5.0)
    rows = [f"{2023 + n // 12}-{n % 12 + 1:02d},{value:.2f}" for n, value in enumerate(values)]
    (tmp_path / "reports.csv").write_text("\n".join(["month,reports", *rows[::-1]]))
    done = cli(
        *("study", "before-after", tmp_path / "reports.csv", "--at", "2024-07", "--time", "month"),
        *("--value", "reports", "--out", tmp_path / "out"),
    )
    assert done.code == 0 and "18 points before 2024-07" in done.out
    record = json.loads((tmp_path / "out" / "before_after.json").read_text())
    assert record["rows"][2]["value"] == pytest.approx(
        before_after.fit_segments(values, 18).table[2]["value"], abs=0.02
    )
    assert "Dashed how" in (page := (tmp_path / "out" / "report.html").read_text()) or "dashed how" in page


WRONG_SERIES = {
    "too short": ("".join(f"{n},{n % 3}\n" for n in range(6)), "3", DatasetError, "too few for a line on each side"),
    "a gap": ("".join(f"{n},{n % 3}\n" for n in range(20) if n != 7), "10", DatasetError, "nothing stands between 6"),
    "twice": ("".join(f"{n},{n % 3}\n" for n in [*range(20), 4]), "10", DatasetError, "4 stands twice"),
    "no number": ("0,many\n" + "".join(f"{n},1\n" for n in range(1, 20)), "10", DatasetError, "'many' in line 2"),
    "another time": ("".join(f"{n},{n % 3}\n" for n in range(20)), "31", UsageError, "'31' is no time"),
    "a line": ("".join(f"{n},{n}\n" for n in range(20)), "10", DatasetError, "without any noise"),
}


@pytest.mark.parametrize("wrong", sorted(WRONG_SERIES))
def test_a_series_that_cannot_be_judged_is_refused(wrong, tmp_path):
    rows, at, error, words = WRONG_SERIES[wrong]
    (tmp_path / "series.csv").write_text(f"time,value\n{rows}")
    with pytest.raises(error, match=words):
        hilum.study_before_after(tmp_path / "series.csv", at=at)
