"""How the tables of models in use are read: words of outcomes, numbers, times, and what is not watched."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import hilum
from hilum.errors import DatasetError, UsageError
from hilum.monitoring.case_stream import CaseStream

CASES = 400
CHANCE = np.random.default_rng(0).uniform(0, 1, CASES).round(3)
ILL = np.random.default_rng(1).uniform(0, 1, CASES) < CHANCE


def answered(start=0, **columns):
    """Cases of a model, exactly calibrated, with further columns."""
    times = pd.Timestamp("2026-03-02T08:00") + pd.to_timedelta(2.4 * (start + np.arange(CASES)), unit="h")
    table = {"at": [one.isoformat() for one in times], "case": [f"{start}-{n}" for n in range(CASES)]}
    return pd.DataFrame({**table, "probability_nodule": CHANCE, **columns})


def words(no, yes):
    return np.where(ILL, yes, no)


@pytest.mark.parametrize(
    ("column", "no", "yes"),
    [
        ("reference_nodule", "N", "Y"),
        ("reference_nodule", "neg", "pos"),
        ("reference_nodule", "FALSCH", "WAHR"),
        ("reference_nodule", "0.0", "1.0"),
        ("reference", "none", "Nodule"),
        ("reference", "", "1"),
        ("reference", "effusion", "nodule,effusion"),
        ("reference", "effusion", "effusion; nodule"),
    ],
)
def test_outcomes_are_read_in_the_words_of_exports(column, no, yes):
    outcomes = CaseStream.from_table(answered(**{column: words(no, yes)})).outcomes("nodule")
    np.testing.assert_array_equal(outcomes == 1, ILL)
    assert (np.isnan(outcomes) == (~ILL & (no == ""))).all()


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"reference_nodule": words("benign", "malignant")}, "reference_nodule in row .* is neither yes nor no"),
        ({"reference_nodule": words("1", "2")}, "'2' is neither yes nor no"),
        ({"called_nodule": words("0", "maybe")}, "called_nodule in row .* 'maybe'"),
        ({"reference": words("benign", "malignant")}, "names none of nodule, but '(benign|malignant)'"),
        ({"probability_nodule": CHANCE * 100}, "probabilities are 0 to 1"),
        ({"probability_nodule": [f"{100 * one:.1f}%" for one in CHANCE]}, "0 to 1. Write 83 % as 0.83"),
        ({"measure_noise": [*map(str, CHANCE[1:]), "noisy"]}, "measure_noise in row 400: 'noisy' is no number"),
        ({"seconds": [*["5.25"] * (CASES - 1), "soon"]}, "seconds in row 400: 'soon' is no number"),
        ({"probability_effusion": CHANCE, "reference": words("0", "yes")}, "does not say which of nodule, effusion"),
    ],
)
def test_a_cell_that_fits_nothing_is_refused_and_never_negative(columns, problem):
    with pytest.raises(DatasetError, match=problem):
        CaseStream.from_table(answered(**columns))


def test_a_name_that_is_no_finding_is_stated_and_codes_are_missing():
    table = answered(
        reference=words("none", "nodule"), reference_nodul="1", covariate_age=[*range(20, 60), -999] * 9 + [5] * 31
    )
    stream = CaseStream.from_table(table.assign(reference=[*table["reference"][1:], "efusion"]))
    assert any("'efusion' (1)" in note for note in stream.notes)
    assert any("'nodul' is no finding of this table" in note for note in stream.notes)
    assert "covariate_age: 391 numbers, 9 cells '-999' taken as missing" in stream.notes
    assert np.isnan(stream.numbers("covariate_age")).sum() == 9


def test_an_odd_value_among_numbers_stops_no_node_and_its_groups_are_named_by_their_columns():
    table = answered(covariate_age=[*map(str, range(20, 90)), "old"] * 5 + ["50"] * 45, attending="a", case_type="b")
    with pytest.raises(DatasetError, match="covariate_age in row 71: 'old' is no number, and so 4 more cells"):
        CaseStream.from_table(table)
    assert np.isnan(CaseStream.from_table(table, strictly=False).numbers("covariate_age")).sum() == 5
    assert list(CaseStream.from_table(table, strictly=False).groups("attending,case_type")) == [
        "attending",
        "case_type",
    ]


def test_decimal_commas_and_semicolons_are_the_same_cases(tmp_path):
    table = answered(measure_noise=np.random.default_rng(2).normal(1500, 10, CASES))
    table.to_csv(tmp_path / "points.csv", index=False)
    table.to_csv(tmp_path / "commas.csv", index=False, sep=";", decimal=",")
    table.astype(str).map(lambda cell: cell.replace(".", ",")).to_csv(tmp_path / "quoted.csv", index=False)
    plain = CaseStream.from_table(tmp_path / "points.csv")
    for name in ("commas.csv", "quoted.csv"):
        other = CaseStream.from_table(tmp_path / name)
        np.testing.assert_array_equal(plain.numbers("measure_noise"), other.numbers("measure_noise"))
        np.testing.assert_array_equal(plain.numbers("probability_nodule"), other.numbers("probability_nodule"))
        assert "probability_nodule: 400 numbers with decimal commas" in other.notes


def test_weekends_and_days_go_by_the_clock_of_the_site():
    bare, zoned = answered(), answered()
    zoned["at"] = zoned["at"] + "+10:00"
    utc = answered()
    utc["at"] = [pd.Timestamp(one).tz_convert("UTC").isoformat() for one in zoned["at"]]
    expected = CaseStream.from_table(bare).strata
    np.testing.assert_array_equal(CaseStream.from_table(zoned).strata, expected)
    np.testing.assert_array_equal(CaseStream.from_table(utc, zone="Australia/Brisbane").strata, expected)
    assert (CaseStream.from_table(utc).strata != expected).any()
    assert len(CaseStream.from_table(zoned).between("2026-03-07", None)) == len(
        CaseStream.from_table(bare).between("2026-03-07", None)
    )


def test_times_with_and_without_zone_and_days_of_two_readings_are_refused():
    mixed = answered()
    mixed.loc[::2, "at"] += "+10:00"
    with pytest.raises(DatasetError, match=r"200 times with a zone .* and 200 without"):
        CaseStream.from_table(mixed)
    with pytest.raises(UsageError, match=r"--since: '03.04.2026' may be 2026-03-04 or 2026-04-03"):
        CaseStream.from_table(answered()).between("03.04.2026", None)


def test_what_is_not_watched_is_stated_and_a_column_that_became_full_rings():
    filled = answered(CASES, covariate_age=np.random.default_rng(3).integers(20, 90, CASES))
    blank = hilum.monitor(filled, reference=answered(covariate_age=""))
    assert [(one.kind, one.watch) for one in blank.alerts] == [("input", "covariate_age")]
    assert "covariate_age is blank in the baseline: only whether it is filled is watched" in blank.notes
    without = hilum.monitor(filled, reference=answered())
    assert not without.alerts
    assert "covariate_age is not watched: the baseline has no such column" in without.notes
    itself = hilum.monitor(filled.assign(case=[*answered()["case"][:3], *filled["case"][3:]]), reference=answered())
    assert "3 cases are in the baseline too: what is compared with itself shows no change" in itself.notes
    assert "in the baseline too" not in " ".join(without.notes)


def test_a_new_level_rings_by_its_name_and_many_levels_alone_do_not():
    random = np.random.default_rng(4)
    levels = [[f"protocol {n}" for n in random.integers(0, 31, CASES)] for _ in range(2)]
    before = answered(covariate_protocol=levels[0])
    assert not hilum.monitor(answered(CASES, covariate_protocol=levels[1]), reference=before).alerts
    [alert] = hilum.monitor(answered(CASES, covariate_protocol="another"), reference=before).alerts
    assert alert.because == "new level 'another' (400 cases)"
    respelled = [level.upper().replace(" ", "-") for level in levels[1]]
    assert not hilum.monitor(answered(CASES, covariate_protocol=respelled), reference=before).alerts


def test_another_share_of_ill_patients_from_the_first_case_on_is_prevalence():
    random = np.random.default_rng(5)

    def exact_at_a_fifth(start, share):
        ill = random.uniform(0, 1, CASES) < share
        odds = 2 * 1.5 * random.normal(np.where(ill, 1.5, -1.5), 1.2) / 1.44 + np.log(0.2 / 0.8)
        return answered(start, probability_nodule=1 / (1 + np.exp(-odds)), reference_nodule=ill.astype(int))

    before = exact_at_a_fifth(0, 0.2)
    season = 0.35 + 0.25 * np.sin(np.arange(CASES) / 60)
    for share in (0.5, season):
        [alert] = hilum.monitor(exact_at_a_fifth(CASES, share), reference=before).alerts
        assert alert.kind == "output"
        assert "as with another prevalence, all log-odds are off by +" in alert.because


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"bounds": [("sensitivty", "nodule", 0.8)]}, "--bound: there is no sensitivty of 'nodule'"),
        ({"bounds": [("sensitivity", "nodul", 0.8)]}, "no sensitivity of 'nodul'. Choose .* of nodule"),
        ({"bounds": [("ppv", "nodule", 80)]}, "no ppv is 80"),
        ({"by": "station"}, "--by: there is no covariate 'station'. Choose from ward"),
        ({"by": "at"}, "--by: there is no covariate 'at'. Choose from ward"),
    ],
)
def test_a_flag_that_cannot_be_is_refused_by_its_own_name(asked, problem):
    with pytest.raises(UsageError, match=problem):
        hilum.monitor(answered(CASES, ward="a"), reference=answered(ward="a"), **asked)
