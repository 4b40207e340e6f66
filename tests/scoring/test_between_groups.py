from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from hilum.errors import DatasetError, UsageError
from hilum.scoring.answered_cases import ScoringFold
from hilum.scoring.auditing import between_groups
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.scoring.case_scoring import AuditInput, ScoredCases
from hilum.tasks.classification.question import Classification


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """Pictures of two classes from two sites, of which the second's are brighter."""
    return from_two_sites(tmp_path_factory.mktemp("sites") / "data")


def from_two_sites(root, first=0):
    trained.pictures(root, first=first)
    rows = []
    for n, path in enumerate(sorted(root.rglob("*.png"))):
        site = ("north", "south")[n % 2]
        if site == "south":
            pixels = np.asarray(PIL.Image.open(path)) // 2 + 100
            PIL.Image.fromarray(pixels.astype(np.uint8)).save(path)
        rows.append(f"{path.stem},{site},{'FM'[n % 3 == 0]},{40 + n}")
    (root / "people.csv").write_text("\n".join(["case,site,sex,age", *rows]))
    return root


@pytest.mark.parametrize(
    "text",
    [
        "attribute,group,share\nsex,F,0.5\nsex,M,0.4\nsex,X,0.1\n",
        "attribute;group;share \nsex;F;0,5\nsex;M ;0,4\nsex;X;0,1\n",
        "attribute,group,share\nsex,female,0.5\nsex,male,0.4\nsex,X,0.1\n",
    ],
)
def test_who_is_here_stands_beside_the_population(sites, tmp_path, text):
    shares = tmp_path / "population.csv"
    shares.write_text(text)
    hilum.check(sites, out=tmp_path / "out", groups="sex", population=shares)
    rows = pd.read_csv(tmp_path / "out" / "representation.csv").set_index("group")
    assert list(rows.columns[:5]) == ["attribute", "patients", "share", "population", "missing"]
    assert rows.loc["M", "patients"] == 14
    assert rows.loc["M", "share"] == 14 / 40
    assert rows.loc["X", "patients"] == 0
    assert rows.loc["M", "population"] == 0.4
    assert rows.loc["F", "label_bright"] + rows.loc["F", "label_dark"] == 1
    assert "The data have nobody of sex X" in (tmp_path / "out" / "check.html").read_text()


def test_a_population_of_people_is_counted(sites, tmp_path):
    people = tmp_path / "people.csv"
    people.write_text("Sex,age\nF,30\nF,70\nM,70\nF,\n")
    hilum.check(sites, out=tmp_path / "out", groups="sex,age:60", population=people)
    rows = pd.read_csv(tmp_path / "out" / "representation.csv").set_index(["attribute", "group"])
    assert rows.loc[("sex", "F"), "population"] == 0.75
    assert rows.loc[("age", ">=60"), "population"] == pytest.approx(2 / 3)


def test_a_table_without_the_groups_is_no_population(sites, tmp_path):
    (tmp_path / "people.csv").write_text("height\n180\n")
    with pytest.raises(DatasetError, match="names none of the groups"):
        hilum.check(sites, groups="sex", population=tmp_path / "people.csv")


def test_sites_with_other_images_are_told_apart_also_among_matched_patients(cli, sites, tmp_path):
    cli("check", sites, "--shift", "site", "--match", "age,sex", "--out", tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "shift.csv")
    assert set(rows["test"]) == {"mmd", "energy", "classifier"}
    assert set(rows["matched"]) == {False, True}
    assert (rows["p_adjusted"] < 0.05).all()
    assert set(pd.read_csv(tmp_path / "out" / "balance.csv")["covariate"]) == {"age", "sex=f", "sex=m"}
    assert "the acquisition differs" in (tmp_path / "out" / "check.html").read_text()


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"shift": "ward"}, "there is no covariate 'ward'"),
        ({"shift": "site", "match": "height"}, "there is no covariate 'height'"),
        ({"match": "age"}, "--shift"),
        ({"population": "people.csv"}, "--groups"),
    ],
)
def test_what_is_asked_wrongly_is_refused(sites, asked, match):
    with pytest.raises(UsageError, match=match):
        hilum.check(sites, **asked)


def scored(shifted: float) -> AuditInput:
    """Cases of two sites, of each another patient; and what a network sees in them."""
    random = np.random.default_rng(0)
    names, site = [f"c{n}" for n in range(60)], np.arange(60) % 2
    who = {"covariate_site": np.array(["north", "south"])[site], "covariate_age": random.normal(60, 9, 60)}
    table = pd.DataFrame({"case": names, "patient": names, "label": "all", **who, "covariate_kv": 120})
    rows = random.normal(size=(60, 5)) + shifted * site[:, None]
    features = dict(zip(names, zip(names, rows, strict=True), strict=True))
    options = AuditOptions(groups="site", shift=True)
    return AuditInput(ScoredCases(table, (), features=features), None, (), 0, True, options=options)


def test_an_evaluation_compares_what_the_network_sees_in_groups():
    found = between_groups.feature_shift(scored(shifted=2.0))
    rows = found.tables["shift.csv"]
    assert set(rows["matched"]) == {False, True}
    assert (rows["p_adjusted"] < 0.05).all()
    assert set(found.tables["balance.csv"]["covariate"]) == {"age"}  # not the scanner's own settings
    assert (between_groups.feature_shift(scored(shifted=0.0)).tables["shift.csv"]["p_adjusted"] > 0.05).all()


@pytest.mark.whole
def test_a_run_whose_gate_nobody_has_calibrated_has_features_to_compare(cli, classified, tmp_path):
    data, out = from_two_sites(tmp_path / "data", first=100), tmp_path / "out"
    cli("evaluate", classified.out, data, "--device", "cpu", "--groups", "site", "--shift", "--out", out)
    assert set(pd.read_csv(out / "shift.csv")["attribute"]) == {"site"}
    assert set(pd.read_csv(out / "groups.csv")["group"]) == {"north", "south"}


def test_of_a_model_that_keeps_no_features_it_is_stated():
    audit = scored(shifted=2.0)
    [note] = between_groups.feature_shift(replace(audit, scored=replace(audit.scored, features={}))).notes
    assert "a model without a gate keeps none" in note


def test_what_several_folds_see_is_not_compared():
    audit = scored(shifted=2.0)
    folds = {case: ScoringFold(n % 2, Classification(("a", "b"))) for n, case in enumerate(audit.scored.features)}
    [note] = between_groups.feature_shift(replace(audit, folds=folds)).notes
    assert "each fold's network has its own" in note
