from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import hilum
import trained
from hilum.errors import DatasetError, PlanError, UsageError
from hilum.evaluation import Metrics, Table, case_tables
from hilum.evaluation.fairness.group_gaps import Gap
from hilum.planning import plan_changes, plan_checks, plan_file
from hilum.runtime import record_files
from hilum.scoring.auditing import group_audit
from hilum.scoring.auditing.audit_options import AuditOptions
from hilum.scoring.case_scoring import AuditInput, ScoredCases
from hilum.scoring.explaining import kept_tests
from hilum.tasks import Task
from hilum.tasks.classification.question import Classification
from hilum.tasks.findings.question import Findings
from hilum.values import Case, Dataset, Decision, Geometry, Prediction
from matrices import thinned
from packages import no_export


def test_a_gap_of_very_many_people_has_no_p_of_0():
    gap = Gap("sex", "auroc", "all", 0.1, 0.09, 0.11, p=0.0, p_adjusted=0.0, worst="F")
    assert "adjusted p < 0.001" in group_audit._words(gap, Metrics())
    assert group_audit._cells(gap, Metrics())[6:8] == ("< 0.001", "< 0.001")


def table_of(count: int = 200, seed: int = 0, worse: float = 0.0) -> Table:
    """Cases of two classes, each another patient's, with more noise in one sex."""
    random = np.random.default_rng(seed)
    sex, site = random.choice(["F", "M"], count), random.choice(list("abc"), count)
    ill = random.random(count) < 0.5
    noise = random.normal(size=count) * (1 + worse * (sex == "F"))
    chance = 1 / (1 + np.exp(-(3 * ill - 1.5 + noise)))
    names, words = [f"c{n}" for n in range(count)], np.array(["fine", "ill"])
    return pd.DataFrame(
        {
            "case": names,
            "patient": [f"p{n}" for n in range(count)],
            "split": "test",
            "label": "all",
            "brier": (chance - ill) ** 2,
            "reference": words[ill.astype(int)],
            "predicted": words[(chance > 0.5).astype(int)],
            "probability_fine": 1 - chance,
            "probability_ill": chance,
            "covariate_sex": sex,
            "covariate_site": site,
        }
    )


def audited(table: Table, task: Task | None = None, **options):
    scored = ScoredCases(table, (), task=task or Classification(("fine", "ill")))
    return group_audit.audit_groups(AuditInput(scored, None, (), 0, True, options=AuditOptions(**options)))


def gaps_in(found) -> Mapping[tuple[str, str], dict]:
    return {(gap["attribute"], gap["metric"]): gap for gap in found.records["fairness.json"][1]["gaps"]}


@pytest.fixture(scope="module")
def unequal():
    return audited(table_of(worse=3.0), groups="sex,site")


def test_every_figure_of_a_group_is_the_tasks_own_summary_of_its_cases(unequal):
    table = table_of(worse=3.0)
    own = table[table["covariate_sex"] == "F"].reset_index(drop=True)
    expected = Classification(("fine", "ill")).summary(
        own, seed=case_tables.resampling_of_table(own, 0).with_draws(1000)
    )
    rows = unequal.tables["groups.csv"]
    assert tuple(rows) == ("attribute", "group", "metric", "label", "value", "low", "high", "n", "patients", "judged")
    found = rows[(rows["attribute"] == "sex") & (rows["group"] == "F")]
    assert [(row.metric, row.label) for row in expected] == list(zip(found["metric"], found["label"], strict=True))
    for line, row in zip(found.itertuples(), expected, strict=True):
        stated = [np.nan if one is None else one for one in (row.estimate.value, row.estimate.low, row.estimate.high)]
        np.testing.assert_array_equal([line.value, line.low, line.high], np.array(stated, float))


def test_a_planted_disparity_is_found_with_its_interval_and_no_other(unequal):
    gap = gaps_in(unequal)["sex", "auroc"]
    names = {"attribute", "metric", "label", "value", "low", "high", "p", "p_adjusted", "worst", "expected"}
    assert set(gap) == names
    assert 0 < gap["expected"] < gap["value"]
    assert gap["worst"] == "F"
    assert 0 < gap["low"] < gap["value"] < gap["high"]
    assert gap["p"] < gap["p_adjusted"] < 0.05
    assert all(one["p_adjusted"] > 0.05 for (attribute, _), one in gaps_in(unequal).items() if attribute == "site")
    assert any(note.startswith("Groups of sex differ: AUROC") for note in unequal.notes)


def test_a_group_with_too_few_or_with_one_class_only_is_stated_and_not_judged():
    table = table_of()
    table.loc[:8, "covariate_site"] = "rare"
    table.loc[(table["covariate_site"] == "c") & (table["reference"] == "ill"), "covariate_site"] = "b"
    found = audited(table, groups="site")
    rows = found.tables["groups.csv"]
    judged = {name: set(own["judged"]) for name, own in rows.groupby("group")}
    assert judged == {"a": {"yes"}, "b": {"yes"}, "c": {"too few to judge"}, "rare": {"too few to judge"}}
    assert {gap["worst"] for gap in gaps_in(found).values()} <= {"a", "b"}
    assert "site c, site rare" in found.sections[0].blocks[0].text


def test_with_one_group_that_can_be_judged_gaps_are_there_and_empty():
    table = table_of(40)
    table["covariate_site"] = ["a"] * 35 + ["b"] * 5
    gaps = gaps_in(audited(table, groups="site"))
    assert all(gap["value"] is None and gap["p"] is None for gap in gaps.values())


def test_gaps_that_too_few_people_have_are_one_sentence_of_the_report_and_no_rows():
    table = table_of(200)
    table["covariate_site"] = ["a"] * 195 + ["b"] * 5
    found = audited(table, groups="sex,site")
    unknown = [one for one in found.records["fairness.json"][1]["gaps"] if one["value"] is None]
    assert {one["attribute"] for one in unknown} == {"site"}
    [every, sentence] = found.sections[0].blocks[-2:]
    [rows] = every.blocks
    assert {cells[0] for cells in rows.rows} == {"sex"}
    assert sentence.text == (
        f"{len(unknown)} gaps have no value, because a group has too few people: site ({len(unknown)})."
    )


def test_where_no_gap_can_be_tested_the_report_does_not_say_that_none_was_found():
    table = table_of(40)
    table["covariate_site"] = ["a"] * 35 + ["b"] * 5
    words = audited(table, groups="site").sections[0].blocks[0].text
    assert "Groups of site are too small to test any gap" in words
    assert "No gap shown" not in words


def test_a_group_whose_figure_is_not_defined_has_its_line_in_the_forest_plot():
    table = table_of()
    table.loc[(table["covariate_site"] == "c") & (table["reference"] == "ill"), "covariate_site"] = "b"
    forest = audited(table, groups="site").sections[0].blocks[1]
    assert "site c undefined" in forest.alt


@pytest.mark.parametrize(
    ("preregistered", "late", "says"),
    [
        ("sex, site", [], "These groups were fixed before training"),
        ("Sex", ["site"], "Not fixed before training, and so exploratory: site"),
        (None, ["sex", "site"], "every gap is exploratory"),
    ],
)
@pytest.mark.whole
def test_groups_that_nobody_fixed_before_training_are_exploratory(preregistered, late, says):
    scored = ScoredCases(table_of(), (), task=Classification(("fine", "ill")))
    options = AuditOptions(groups="sex,site")
    found = group_audit.audit_groups(
        AuditInput(scored, None, (), 0, True, options=options, preregistered=preregistered)
    )
    assert found.records["fairness.json"][1]["exploratory"] == late
    assert says in found.sections[0].blocks[0].text


def test_those_of_whom_nobody_knows_the_group_are_stated_and_in_no_gap():
    table = table_of()
    table.loc[:29, "covariate_sex"] = None
    rows = audited(table, groups="sex").tables["groups.csv"]
    assert set(rows.loc[rows["group"] == "unknown", "judged"]) == {"nobody knows the group"}


def test_images_of_one_person_in_two_groups_are_compared():
    table = table_of(120)
    table["patient"] = [f"p{n // 2}" for n in range(120)]
    assert gaps_in(audited(table, groups="site"))["site", "auroc"]["p"] is not None


def test_abstentions_have_gaps():
    table = table_of()
    table["abstained"] = np.where((table["covariate_sex"] == "F") & (np.arange(200) % 2 == 0), "unusual", "")
    gap = gaps_in(audited(table, groups="sex"))["sex", "abstention"]
    assert gap["value"] == pytest.approx(0.5, abs=0.1)
    assert gap["worst"] == "F"


def test_without_covariates_there_is_nothing_to_audit():
    bare = table_of(30).drop(columns=["covariate_sex", "covariate_site"])
    assert audited(bare) is None
    with pytest.raises(UsageError, match="--group-table"):
        audited(bare, groups="sex")


def whose(path, ids) -> str:
    """A table of the sexes of these cases."""
    rows = [f"{one},{'FM'[n % 2]}" for n, one in enumerate(sorted(ids))]
    path.write_text("\n".join(["case,sex", *rows]))
    return str(path)


@pytest.mark.whole
def test_a_table_of_groups_joins_the_cases_that_an_evaluation_scores_and_needs_no_others(cli, segmented, tmp_path):
    split = pd.read_csv(segmented.out / "split.csv")
    ids = split.loc[split["split"] == "test", "case"]
    out, table = tmp_path / "out", whose(tmp_path / "who.csv", ids)
    given = ("--labels", trained.LABELS, "--device", "cpu", "--out", out)
    # Nobody has to name the groups: a table of them is given to be compared.
    cli("evaluate", segmented.out, segmented.data, "--group-table", table, *given)
    rows = pd.read_csv(out / "groups.csv")
    assert {"dice"} <= set(rows["metric"])
    assert set(rows["judged"]) == {"too few to judge"}
    assert [name for name in pd.read_csv(out / "cases.csv") if name.startswith("covariate_")] == ["covariate_sex"]
    found = json.loads((out / "fairness.json").read_text())
    assert {gap["metric"] for gap in found["gaps"]} == {"dice", "abstention"}
    assert (found["groups"], found["exploratory"]) == ("sex", ["sex"])
    assert "Groups of people" in (out / "report.html").read_text()


def test_a_table_of_groups_fills_in_what_the_headers_leave_empty_and_changes_nothing_that_they_state(tmp_path):
    headers = [{"sex": None, "age": None, "model": "Aera"}, {"sex": "F", "age": 50.0, "model": "Aera"}]
    dataset = Dataset(tuple(Case(f"c{n}", f"p{n}", {}, covariates=own) for n, own in enumerate(headers)))
    (tmp_path / "who.csv").write_text("case,Sex,age,site\nc0,M,70,north\nc1,M,70,south\n")
    first, second = group_audit.with_table_covariates(dataset, tmp_path / "who.csv", {"c0", "c1"})
    assert first.covariates == {"sex": "M", "age": 70, "model": "Aera", "site": "north"}
    assert second.covariates == {"sex": "F", "age": 50.0, "model": "Aera", "site": "south"}
    [unscored, _] = group_audit.with_table_covariates(dataset, tmp_path / "who.csv", {"c1"})
    assert unscored.covariates == headers[0]


@pytest.mark.whole
def test_an_unknown_covariate_is_refused_before_anything_is_predicted(segmented):
    with pytest.raises(UsageError, match="there is no covariate 'height'"):
        hilum.evaluate(segmented.out, segmented.data, labels=trained.LABELS, device="cpu", groups="height")


def test_groups_with_thresholds_of_their_own_show_them_and_figures_go_by_them():
    table = table_of().assign(threshold_ill=lambda rows: np.where(rows["covariate_sex"] == "F", 0.3, 0.6))
    rows = audited(table, groups="sex,site").tables["groups.csv"].set_index(["attribute", "group", "metric", "label"])
    assert rows["value"]["sex", "F", "threshold", "ill"] == 0.3 and rows["value"]["sex", "M", "threshold", "ill"] == 0.6
    ill = table[(table["covariate_sex"] == "F") & (table["reference"] == "ill")]
    found = (ill["probability_ill"] >= 0.3).mean()
    assert rows["value"]["sex", "F", "sensitivity", "ill"] == pytest.approx(found)
    assert "threshold" not in set(audited(table_of(), groups="sex").tables["groups.csv"]["metric"])


def test_a_table_without_a_row_for_a_case_is_refused(segmented, tmp_path):
    with pytest.raises(DatasetError, match="has no row"):
        hilum.evaluate(
            segmented.out, segmented.data, labels=trained.LABELS, group_table=whose(tmp_path / "who.csv", ["case00"])
        )


@pytest.mark.whole
def test_a_table_that_names_no_case_says_what_it_names_and_what_it_should(segmented, tmp_path):
    (tmp_path / "who.csv").write_text("case,sex\nfoo,F\nbar,M\n")
    with pytest.raises(DatasetError, match="its column case names foo, bar") as refused:
        hilum.evaluate(segmented.out, segmented.data, labels=trained.LABELS, group_table=tmp_path / "who.csv")
    assert "without their endings" in refused.value.remedy


def peopled(root, **how):
    """Pictures with a table of who they are of."""
    data = trained.pictures(root, **how)
    rows = [f"{path.stem},{'FM'[n % 2]},{20 + n}" for n, path in enumerate(sorted(data.rglob("*.png")))]
    (data / "people.csv").write_text("\n".join(["case,sex,age", *rows]))
    return data


@pytest.mark.whole
def test_groups_are_in_the_plan_before_training_and_unknown_ones_are_refused(tmp_path):
    data = peopled(tmp_path / "data")
    assert hilum.plan(data, device="cpu").plan["evaluation.groups"] == "sex"
    asked = {"evaluation.groups": "sex,age:40,sex*age"}
    assert hilum.plan(data, device="cpu", assignments=asked).plan["evaluation.groups"] == "sex,age:40,sex*age"
    with pytest.raises(PlanError, match="there is no covariate 'height'"):
        hilum.plan(data, device="cpu", assignments={"evaluation.groups": "height"})


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A run that has fixed groups of people and a margin before training."""
    root = tmp_path_factory.mktemp("grouped")
    asked = {**trained.TWO_STEPS, "task.group_thresholds": True, "training.protected": "sex"}
    asked["evaluation.margin"] = 0.05
    return trained.classifying(peopled(root / "data"), root / "run", groups="sex", assignments=asked)


@pytest.mark.whole
def test_a_run_audits_the_groups_of_its_plan_and_packages_keep_that_also_when_calibrated_anew(grouped, tmp_path):
    run, folder = grouped, grouped.out / "evaluation"
    assert set(pd.read_csv(folder / "groups.csv")["attribute"]) == {"sex"}
    found = json.loads((folder / "fairness.json").read_text())
    assert (found["groups"], found["exploratory"]) == ("sex", [])
    words = "fixed with it: the margin of non-inferiority 0.05 and the groups sex"
    assert words in (run.out / "report.html").read_text()
    plan = plan_file.read_plan(run.out / "plan.yaml")
    assert (plan["evaluation.groups"], plan["task.group_thresholds"]) == ("sex", "sex")
    assert plan["task.thresholds_by_group"] == {}
    assert "too few" in plan.decision("task.thresholds_by_group").because
    site = peopled(tmp_path / "site", count=48, first=5000)
    with no_export():
        package = hilum.package(run.out, out=tmp_path / "model", backends=()).out
        kept_tests.keep_records(package, hilum.load(package, "cpu"), {"gradcam": {"passed": True}}, {})
        made = hilum.calibrate(package, site, out=tmp_path / "calibrated", backends=())
    hilum.evaluate(package, site, out=tmp_path / "evaluated", device="cpu")
    elsewhere = json.loads((tmp_path / "evaluated" / "fairness.json").read_text())
    assert (elsewhere["groups"], elsewhere["exploratory"]) == ("sex", [])
    assert "AUROC was named primary before training" in (tmp_path / "evaluated" / "report.html").read_text()
    assert set(made.decisions["task.thresholds_by_group"].value) == {"f", "m"}
    assert set(hilum.load(made.out, "cpu").task.grouped.levels) == {"f", "m"}
    calibrated = made.out
    for packed in (package / "hilum", calibrated / "hilum"):
        for name in ("groups.csv", "fairness.json"):
            assert (packed / name).read_text() == (folder / name).read_text()
        assert json.loads((packed / "explanations.json").read_text())["methods"] == {"gradcam": {"passed": True}}


@pytest.mark.whole
def test_an_ensemble_keeps_the_groups_and_the_margin_that_its_members_fixed_before_training(grouped, tmp_path):
    run, again = grouped.out, shutil.copytree(grouped.out, tmp_path / "again")
    data = run.parent / "data"
    made = hilum.ensemble((run, again), out=tmp_path / "both", device="cpu", data=data)
    found = json.loads((made.out / "evaluation" / "fairness.json").read_text())
    assert (found["groups"], found["exploratory"]) == ("sex", [])
    assert "No groups were fixed before training" not in made.report.read_text()
    assert json.loads((made.out / "evaluation" / "summary.json").read_text())["preregistered_margin"] == 0.05
    other = plan_file.read_plan(again / "plan.yaml").with_decision("evaluation.margin", Decision(0.2, "by hand"))
    other = other.with_decision(
        "evaluation.preregistered", Decision(plan_file.preregistration_digest(other), "before its training")
    )
    (again / "plan.yaml").write_text(plan_file.plan_text(other))
    apart = hilum.ensemble((run, again), out=tmp_path / "apart", device="cpu", data=data).out / "evaluation"
    assert "preregistered_margin" not in json.loads((apart / "summary.json").read_text())
    assert json.loads((apart / "fairness.json").read_text())["exploratory"] == ["sex"]


@pytest.mark.parametrize("cohort", ["detected", "segmented"])
@pytest.mark.whole
def test_other_kinds_of_problem_have_gaps_of_their_own_metrics(cohort, request):
    run = request.getfixturevalue(cohort)
    result = hilum.evaluate(run.out, run.data, split="all", device="cpu", **READ.get(cohort, {}))
    table = result.scored.table
    numbers = table["case"].map({name: n for n, name in enumerate(sorted(set(table["case"])))})
    table = table.assign(patient=table["case"].to_numpy(), covariate_half=np.where(numbers % 2 == 0, "even", "odd"))
    repeated = [table.assign(case=table["case"] + str(n), patient=table["case"] + str(n)) for n in range(3)]
    gaps = gaps_in(audited(pd.concat(repeated, ignore_index=True), result.scored.task, groups="half"))
    wanted = {"detected": "cpm", "segmented": "dice"}[cohort]
    assert gaps["half", wanted]["p"] is not None


READ = {"segmented": {"labels": trained.LABELS}}


@pytest.mark.parametrize(
    "method",
    thinned(1, ["constraint", *(pytest.param(name, marks=pytest.mark.whole) for name in ("group_dro", "adversarial"))]),
)
def test_a_training_treats_groups_alike_and_a_covariate_of_the_group_is_no_input(method, tmp_path):
    asked = {**trained.TWO_STEPS, "training.fairness": method, "training.protected": "sex", "augmentation.mixup": 0.0}
    run = trained.classifying(peopled(tmp_path / "data"), tmp_path / "run", assignments=asked)
    assert pd.read_csv(run.out / "log.csv")["loss"].notna().all()
    plan = plan_file.read_plan(run.out / "plan.yaml")
    assert plan["training.fairness"] == method
    assert plan["network.context"] is None
    record = record_files.read_json(run.out / "checkpoints" / "best" / "model.json", "hilum.model")["record"]
    assert bool(record.get("refitted")) == (method == "constraint")


def test_a_task_without_classes_is_refused_a_constraint(segmented):
    asked = {"training.fairness": "constraint", "training.protected": "sex"}
    with pytest.raises(PlanError, match="a segmentation has no classes"):
        plan_checks.checked_settings(
            plan_changes.with_settings(plan_file.read_plan(segmented.out / "plan.yaml"), asked)
        )


@pytest.mark.parametrize(
    ("asked", "match"),
    [
        ({"training.fairness": "reweigh"}, "reweigh needs groups"),
        ({"training.fairness": "reweigh", "training.protected": "height"}, "there is no covariate 'height'"),
        ({"training.fairness": "reweigh", "training.protected": "sex,age:40"}, "'sex,age:40' is not one attribute"),
        ({"training.fairness": "group_dro", "training.protected": "none"}, "'none' is not one attribute"),
        ({"training.fairness": "fairest", "training.protected": "sex"}, "fairness"),
        (
            {"training.fairness": "reweigh", "training.protected": "sex", "task.loss": "class_balanced"},
            "adds up losses of single classes",
        ),
        ({"task.group_thresholds": "height"}, "there is no covariate 'height'"),
        ({"task.group_thresholds": True}, "True names no groups.*training.protected"),
        (
            {"training.fairness": "resample", "training.protected": "sex", "training.sampling": "balanced"},
            "cannot be sampled balanced and by groups at once",
        ),
    ],
)
def test_a_training_that_cannot_treat_groups_alike_is_refused(asked, match, tmp_path):
    with pytest.raises(PlanError, match=match):
        hilum.plan(peopled(tmp_path / "data"), device="cpu", assignments=asked)


class Counting:
    """A network that gets the sex and the site, and answers by them; it counts what it is asked."""

    task = Classification(("fine", "ill"))
    networks = SimpleNamespace(context=SimpleNamespace(names=("sex", "site")))

    def __init__(self) -> None:
        self.asked = 0

    def model_of(self, _: str) -> Counting:
        return self

    def predict(self, case: Case) -> Prediction:
        self.asked += 1
        ill = 0.2 + 0.5 * (case.covariates["sex"] == "F")
        return Prediction(Geometry.of_pixels((2, 2)), probabilities={"fine": 1 - ill, "ill": ill})


@pytest.mark.parametrize(("count", "cases"), [(200, {"sex": 10, "site": 5}), (40, {"sex": 5, "site": 5})])
@pytest.mark.whole
def test_a_tenth_of_the_cases_is_predicted_again_for_all_covariates_and_of_few_cases_five_of_each(count, cases):
    table = table_of(count).assign(probability_ill=lambda rows: 0.2 + 0.5 * (rows["covariate_sex"] == "F"))
    table["probability_fine"] = 1 - table["probability_ill"]
    people = [
        Case(
            one.case, one.patient, {}, {"class": one.reference}, {"sex": one.covariate_sex, "site": one.covariate_site}
        )
        for one in table.itertuples()
    ]
    network = Counting()
    found = group_audit.audit_groups(AuditInput(ScoredCases(table, (), task=network.task), network, people, 0, True))
    rows = {row["attribute"]: row for row in found.records["fairness.json"][1]["swapped"]}
    assert {name: row["cases"] for name, row in rows.items()} == cases
    assert network.asked == cases["sex"] + 2 * cases["site"] <= max(count // 10, 15)
    assert (rows["sex"]["moved"], rows["site"]["moved"]) == (pytest.approx(0.5), pytest.approx(0.0))


def test_people_who_look_alike_to_the_network_are_compared():
    table, random = table_of(80), np.random.default_rng(0)
    seen = {
        name: (name.replace("c", "p"), row)
        for name, row in zip(table["case"], random.normal(size=(80, 3)), strict=True)
    }
    scored = ScoredCases(table, (), task=Classification(("fine", "ill")), features=seen)
    found = group_audit.audit_groups(AuditInput(scored, None, (), 0, True, options=AuditOptions(groups="sex")))
    [alike] = found.records["fairness.json"][1]["individual"]
    assert set(alike) == {"attribute", "others", "own", "difference", "p", "cases"}
    assert alike["p"] > 0.01


def test_people_who_look_alike_are_compared_finding_by_finding_and_values_in_their_deviations():
    random = np.random.default_rng(0)
    rows = [
        {
            "case": f"c{n}", "patient": f"p{n}", "split": "test", "label": name, "brier": 0.1, "predicted": "absent",
            "reference": "present" if n % 4 < 2 else "absent", "probability": chance, "covariate_sex": "FM"[n % 2],
        }
        for n in range(80)
        for name, chance in (("rare", 0.9), ("usual", 0.1))
        if name == "usual" or n % 2 == 0  # of men nobody looked for the rare one
    ]  # fmt: skip
    table, task = pd.DataFrame(rows), Findings(("rare", "usual"))
    seen = {f"c{n}": (f"p{n}", random.normal(size=3)) for n in range(80)}
    scored = ScoredCases(table, (), task=task, features=seen)
    found = group_audit.audit_groups(AuditInput(scored, None, (), 0, True, options=AuditOptions(groups="sex")))
    [alike] = found.records["fairness.json"][1]["individual"]
    assert (alike["others"], alike["own"], alike["p"], alike["cases"]) == (0, 0, 1, 80)
    values = pd.DataFrame(
        {"case": list("aabbc"), "label": ["ml", "years"] * 2 + ["ml"], "predicted": [1.0, 40, 2, 60, 3]}
    )
    np.testing.assert_allclose(
        group_audit.answers_by_case(values), [[1, 40 / 200**0.5], [2, 60 / 200**0.5], [3, np.nan]]
    )
