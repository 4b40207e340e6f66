from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

import hilum
from hilum.errors import HilumError


def hospital(event="", cases=900, baseline=300, seed=0):
    """(baseline, cases) of a node with two scanners; the event comes after half of the cases."""
    random, total = np.random.default_rng(seed), cases + baseline
    after = np.arange(total) >= baseline + cases // 2
    station = random.choice(["a", "b"], total, p=[0.6, 0.4])
    share = np.where(after & (event == "prevalence"), 0.6, 0.2)
    ill = random.random(total) < share
    seen = random.normal(size=total) + 1.8 * ill
    odds = 1.8 * seen - 1.62 + np.log(0.2 / 0.8)
    meaning = np.where(after & (event == "concept"), 1.5, 0.0)
    truth = np.where(event == "concept", random.random(total) < 1 / (1 + np.exp(-odds - meaning)), ill)
    struck = after & (station == "b") & (event == "noise")
    p = 1 / (1 + np.exp(-odds))
    table = pd.DataFrame(
        {
            "at": [str(one) for one in pd.date_range("2026-01-01", periods=total, freq="3h")],
            "case": [f"c{number}" for number in range(total)],
            "patient": [f"p{number}" for number in range(total)],
            "probability_nodule": p,
            "called_nodule": (p >= 0.5).astype(int),
            "measure_noise": random.normal(10, 1, total) + 1.5 * struck,
            "station": station,
            "software": np.where(struck, "v6", "v5"),
            "reference": truth.astype(int),
            "inclusion": 1.0,
        }
    )
    return table[:baseline], table[baseline:]


def test_a_quiet_node_has_no_alert_and_audited_figures_lie_in_their_intervals():
    baseline, cases = hospital()
    seen = hilum.monitor(cases, reference=baseline, by="station")
    assert not seen.alerts
    called, truth = cases["called_nodule"] == 1, cases["reference"] == 1
    [first] = [
        row for row in seen.figures if (row.metric, row.source, row.scope) == ("sensitivity", "audited", "station=a")
    ]
    own = cases["station"] == "a"
    assert first.estimate.low <= called[own & truth].mean() <= first.estimate.high


def test_noise_of_one_scanner_is_traced_to_it_and_what_changed_at_the_same_time_is_no_cause(tmp_path):
    baseline, cases = hospital("noise")
    baseline.to_csv(tmp_path / "before.csv", index=False)
    cases.to_parquet(tmp_path / "now.parquet")
    out = tmp_path / "out"
    seen = hilum.monitor(tmp_path / "now.parquet", reference=tmp_path / "before.csv", by="station,software", out=out)
    [alert] = seen.alerts
    assert (alert.kind, alert.watch, alert.scope, alert.severity) == ("input", "measure_noise", "station=b", "urgent")
    assert "about the same time software changed from v5 to v6" in alert.because
    assert abs(pd.Timestamp(alert.since) - pd.Timestamp(cases["at"].iloc[450], tz="UTC")) < pd.Timedelta(days=7)
    assert json.loads((out / "monitor.json").read_text())["schema"] == "hilum.monitor"
    assert list(pd.read_csv(out / "alerts.csv")["watch"]) == ["measure_noise"]
    assert "station=b" in (out / "report.html").read_text()
    assert set(pd.read_csv(out / "performance.csv")["source"]) == {"audited", "estimated"}


def test_a_change_everywhere_names_no_level():
    baseline, cases = hospital()
    late = np.arange(len(cases)) >= 450
    cases = cases.assign(measure_noise=cases["measure_noise"] + 1.5 * late)
    [alert] = hilum.monitor(cases, reference=baseline, by="station,software").alerts
    assert (alert.watch, alert.scope) == ("measure_noise", "")


def test_a_change_of_meaning_is_concept_and_withholds_estimates():
    baseline, cases = hospital("concept")
    seen = hilum.monitor(cases, reference=baseline)
    assert [alert.kind for alert in seen.alerts] == ["concept"]
    since = seen.alerts[0].since[:10]
    assert all(row.until <= since for row in seen.figures if row.source == "estimated")
    assert any(row.source == "estimated" for row in seen.figures)


def test_another_share_of_ill_patients_is_an_alert_of_outputs_as_prevalence_makes_it():
    baseline, cases = hospital("prevalence")
    seen = hilum.monitor(cases, reference=baseline)
    assert [alert.kind for alert in seen.alerts] == ["output"]
    assert "prevalence" in seen.alerts[0].because


def test_an_audited_figure_below_its_bound_is_urgent():
    baseline, cases = hospital()
    seen = hilum.monitor(cases, reference=baseline, bounds=[("sensitivity", "nodule", 0.9)])
    assert {alert.severity for alert in seen.alerts} == {"urgent"}
    assert "the bound is 0.9" in seen.alerts[0].because


def test_each_bound_is_held_crossed_or_not_judged_with_the_reason_and_a_reported_figure_below_it_is_in_the_verdict(
    tmp_path,
):
    baseline, cases = hospital()
    low, high = ("sensitivity", "nodule", 0.2), ("specificity", "nodule", 0.999)
    seen = hilum.monitor(cases, reference=baseline, bounds=[low, high], out=tmp_path / "out")
    assert [one.state for one in seen.bounds] == ["held", "crossed"]
    assert "reported" not in seen.verdict and re.search(r"0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)", seen.bounds[0].because)
    assert [one["state"] for one in json.loads((tmp_path / "out" / "monitor.json").read_text())["bounds"]] == [
        "held",
        "crossed",
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "specificity of nodule" in page and "Figures over time" in page
    reported = hilum.monitor(cases.drop(columns="inclusion"), reference=baseline, bounds=[low, high])
    assert [(one.state, one.because) for one in reported.bounds] == [("not judged", "no case was audited")] * 2
    assert not reported.alerts and "no alert in 900 cases" in reported.verdict
    assert "reported, not audited: specificity of nodule" in reported.verdict and "sensitivity" not in reported.verdict
    few = cases.assign(reference=np.where(np.arange(len(cases)) < 8, cases["reference"], np.nan))
    [state] = hilum.monitor(few, reference=baseline, bounds=[low]).bounds
    assert state.state == "not judged" and "too few to judge" in state.because


def test_software_that_changed_is_dated():
    baseline, cases = hospital()
    half = np.arange(len(cases)) < 450
    changed = cases.assign(version=np.where(half, "1", "2"), software=np.where(np.arange(len(cases)) < 700, "v5", "v6"))
    seen = hilum.monitor(changed, reference=baseline)
    assert seen.facts["changes"] == {
        pd.Timestamp(cases["at"].iloc[450]).isoformat(): "version 2",
        pd.Timestamp(cases["at"].iloc[700]).isoformat(): "software v6",
    }
    assert {row.since for row in seen.earlier} and max(row.until for row in seen.earlier) <= seen.figures[-1].until


def test_a_column_that_vanishes_rings():
    baseline, cases = hospital()
    [alert] = hilum.monitor(cases.drop(columns="measure_noise"), reference=baseline).alerts
    missing = "values are missing: 100% since then, 0% of the baseline"
    assert (alert.watch, alert.because) == ("measure_noise", missing)


@pytest.mark.parametrize("in_baseline", [False, True])
def test_values_below_a_limit_are_values_on_both_sides_and_never_missing(in_baseline):
    baseline, cases = hospital()
    many, few = cases["measure_noise"].quantile([0.6, 0.1])

    def below(table, limit):
        return [f"<{limit:.3f}" if one < limit else f"{one:.6f}" for one in table["measure_noise"]]

    tables = [below(baseline, few), below(cases.assign(measure_noise=cases["measure_noise"] - 2), few)]
    if in_baseline:
        tables = [below(baseline, many), below(cases.assign(measure_noise=cases["measure_noise"] + 2), many)]
    seen = hilum.monitor(cases.assign(measure_noise=tables[1]), reference=baseline.assign(measure_noise=tables[0]))
    assert [(alert.watch, alert.because) for alert in seen.alerts] == [("measure_noise", "")]
    alike = hilum.monitor(
        cases.assign(measure_noise=below(cases, many)), reference=baseline.assign(measure_noise=below(baseline, many))
    )
    assert not alike.alerts


def test_an_alert_of_missing_values_states_how_many_there_are_and_were():
    baseline, cases = hospital()
    lacking = baseline.assign(measure_noise=baseline["measure_noise"].where(np.arange(len(baseline)) % 2 == 0))
    [alert] = hilum.monitor(cases, reference=lacking).alerts
    assert (alert.watch, alert.because) == (
        "measure_noise",
        "fewer values are missing: 0% since then, 50% of the baseline",
    )


def test_fewer_cases_a_day_ring():
    baseline, cases = hospital()
    fewer = cases[(np.arange(len(cases)) < 450) | (np.arange(len(cases)) % 8 == 0)]
    # Days are not all alike: of equal days no rank is known.
    uneven = np.random.default_rng(3).random(len(baseline)) < 0.9
    kept = np.random.default_rng(4).random(len(fewer)) < 0.9
    [alert] = hilum.monitor(fewer[kept], reference=baseline[uneven]).alerts
    assert (alert.watch, alert.kind) == ("cases a day", "operation")
    assert "7." in alert.because.partition(",")[2]


def test_a_new_version_is_watched_alone():
    baseline, cases = hospital()
    cases = cases.assign(version=np.where(np.arange(len(cases)) < 300, "1", "2"))
    seen = hilum.monitor(cases, reference=baseline)
    assert seen.facts["cases"] == 600
    assert "2 versions" in seen.notes[0]


def test_times_out_of_order_are_sorted_and_said():
    baseline, cases = hospital()
    mixed = hilum.monitor(cases.sample(frac=1, random_state=0), reference=baseline)
    assert "not in the order of time" in mixed.notes[0]
    assert mixed.drifts == hilum.monitor(cases, reference=baseline).drifts


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda cases: cases.drop(columns="at"), "no column at"),
        (lambda cases: cases.assign(at="yesterday"), "no time"),
        (lambda cases: cases.assign(case="one"), "occurs twice"),
        (lambda cases: cases.assign(inclusion=0), "inclusion of 0"),
        (lambda cases: cases[:30], "baseline has 15 cases"),
        (lambda cases: cases[:0], "no row"),
    ],
)
def test_a_table_that_cannot_be_watched_is_refused(change, words):
    _, cases = hospital()
    with pytest.raises(HilumError, match=words):
        hilum.monitor(change(cases))


def test_a_site_with_other_images_is_unlike_the_reference_from_its_first_case_on_though_nothing_has_changed(tmp_path):
    baseline, cases = hospital()
    alike = hilum.monitor(cases, reference=baseline)
    assert alike.site_verdict.startswith("No difference shown") and not alike.alerts
    noisy = cases.assign(measure_noise=cases["measure_noise"] + 1.0)
    seen = hilum.monitor(noisy, reference=baseline, out=tmp_path / "out")
    unlike = [row for row in seen.site if row.is_unlike]
    assert {(row.against, row.of) for row in unlike} == {("reference table", "input")}
    assert seen.site_verdict.startswith("This site is unlike the reference table (input")
    stated = json.loads((tmp_path / "out" / "monitor.json").read_text())
    assert stated["site_verdict"] == seen.site_verdict and "unlike" not in stated["verdict"]
    assert set(pd.read_csv(tmp_path / "out" / "site.csv")["test"]) == {"mmd", "energy", "classifier"}
    assert "Is this site what the model was made on?" in (tmp_path / "out" / "report.html").read_text()
    # Its own first cases are its baseline: against these nothing has changed.
    own = hilum.monitor(noisy)
    assert not own.site and not own.alerts


def test_features_of_a_table_are_one_watch():
    baseline, cases = hospital()
    random = np.random.default_rng(3)
    names = [f"feature_{n}" for n in range(8)]
    before, now = (pd.DataFrame(random.normal(size=(len(one), 8)), one.index, names) for one in (baseline, cases))
    now.iloc[450:, 5] += 1.5
    known, late = baseline.join(before), cases.join(now)
    [alert] = hilum.monitor(late, reference=known).alerts
    assert (alert.watch, alert.kind) == ("features", "input")
    many = known.assign(**{f"feature_{n}": 0.0 for n in range(80)})
    with pytest.raises(HilumError, match="principal axes"):
        hilum.monitor(late, reference=many)
