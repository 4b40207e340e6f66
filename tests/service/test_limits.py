"""What a node answers with: packages that were accepted, and models within their limits."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import packages
from hilum.errors import UsageError
from hilum.monitoring.acceptance_plan import ACCEPTANCE, CONDITIONAL, SCHEMA
from hilum.monitoring.alerting import CROSSED, BoundState
from hilum.runtime import record_files
from hilum.service import acceptances, configuration
from hilum.service.acceptances import Acceptances
from hilum.service.configuration import StopRule
from hilum.service.exchange.fhir_covariates import CovariateValue
from hilum.service.monitoring import safety, stop_rules
from hilum.service.monitoring_rounds import Rounds
from hilum.service.records import tables
from hilum.service.records.actor import ANYONE, Actor
from service.test_monitoring import Records

NOW = 1.8e9


def jobs(count: int, *, called: float = 0.0, silent: int = 0, seconds: float = 1.0) -> pd.DataFrame:
    """So many jobs, one an hour until now; called: the share in which a nodule is."""
    at = [pd.Timestamp(NOW - 3600 * n, unit="s", tz="UTC").isoformat() for n in range(count)]
    rows = {"at": at, "abstained": [None] * (count - silent) + ["gate"] * silent, "seconds": np.full(count, seconds)}
    return pd.DataFrame({**rows, "called_nodule": (np.arange(count) < called * count).astype(float)})


@pytest.mark.parametrize(
    ("rule", "table", "broken"),
    [
        ({"calls": "nodule", "above": 0.4}, jobs(40, called=0.5), ["limit: calls nodule"]),
        ({"calls": "nodule", "above": 0.4}, jobs(40, called=0.4), []),
        ({"calls": "nodule", "above": 0.4}, jobs(19, called=1.0), []),
        ({"refused": 0.2}, jobs(40, silent=9), ["limit: refused"]),
        ({"refused": 0.2}, jobs(40, silent=8), []),
        ({"seconds_p95": 120}, jobs(40, seconds=121), ["limit: seconds_p95"]),
        ({"seconds_p95": 120, "days": 0.5}, jobs(40, seconds=121), []),
    ],
)
def test_a_limit_is_broken_beyond_its_share_of_twenty_jobs_or_more(rule, table, broken):
    found = stop_rules.broken_limits([StopRule(**rule)], table, [], NOW)
    assert [name for name, _ in found] == broken


def test_a_bound_that_is_crossed_breaks_the_limit_however_few_jobs_there_are():
    states = [BoundState("sensitivity of nodule", 0.8, CROSSED, "0.6 of 50"), BoundState("ppv", 0.5, "held", "")]
    found = list(stop_rules.broken_limits([StopRule(bound=True)], jobs(1), states, NOW))
    assert found == [("limit: sensitivity of nodule", "0.6 of 50")]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{ days = 7 }", "a stop rule names one watch"),
        ('{ calls = "nodule", above = 0.4, refused = 0.2 }', "a stop rule names one watch"),
        ('{ calls = "nodule" }', "calls needs above"),
        ("{ bound = true }", "names no watch: there is no"),
    ],
)
def test_a_stop_rule_that_names_no_watch_is_refused(tmp_path, rule, message):
    (tmp_path / "node.toml").write_text(f'[models.lung]\npath = "lung"\nstop = [{rule}]\n')
    with pytest.raises(UsageError, match=message):
        configuration.read_settings(tmp_path / "node.toml")


def test_a_model_beyond_its_limit_is_halted_until_two_people_agree(tmp_path):
    records = Records(
        tmp_path / "node", notify=[{"when": "monitor:urgent", "by": "webhook", "to": "http://127.0.0.1:9/alert"}]
    )
    records.answered(60)
    rule = StopRule(calls="nodule", above=0.2, days=400)
    model = records.settings.models["nodule"].model_copy(update={"stop": [rule]})
    rounds = Rounds(records.settings.model_copy(update={"models": {"nodule": model}}), records.database)
    assert rounds.round() == 1
    [hold], [alert] = records.rows(tables.HOLDS), records.rows(tables.ALERTS)
    assert (hold.action, alert.watch, alert.severity) == ("halt", "limit: calls nodule", "urgent")
    assert "was called in" in alert.because and len(records.rows(tables.DELIVERIES)) == 1

    ada, ben = (Actor(name, "radiologist") for name in ("ada", "ben"))
    with records.database.write() as connection:
        assert not safety.undo_model_hold(connection, hold.n, ANYONE, "nobody knows who")
        assert safety.undo_model_hold(connection, hold.n, ada, "a screening day")
        assert safety.hold_of(connection, "nodule").undone_by == "ada"
        assert not safety.undo_model_hold(connection, hold.n, ada, "once more")
        assert safety.undo_model_hold(connection, hold.n, ben, "the day is over")
        assert safety.hold_of(connection, "nodule") is None
    assert [row.action for row in records.rows(tables.AUDIT)][-3:-1] == [
        "safety halt agreed to undo",
        "safety halt undone",
    ]
    rounds.round()
    assert [row.state for row in records.rows(tables.ALERTS)] == ["closed"]
    assert len(records.rows(tables.HOLDS)) == 1
    records.database.close()


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    with packages.no_export():
        return packages.packed(packages.classifying(), tmp_path_factory.mktemp("models") / "lung")


def settings_for(folder, package, **record):
    """The settings of a node whose model was accepted so."""
    accepted = folder / "accepted"
    accepted.mkdir()
    manifest = record_files.file_digest(package / "manifest.json")
    record_files.write_json(
        accepted / ACCEPTANCE, SCHEMA, {"verdict": CONDITIONAL, "model": manifest, "conditions": {}, **record}
    )
    record_files.seal_folder(accepted)
    (folder / "node.toml").write_text(
        f'[models.lung]\npath = "{package}"\nrequire_acceptance = true\nacceptance = "accepted"\n'
    )
    return configuration.read_settings(folder / "node.toml")


def test_a_model_answers_only_the_groups_that_it_was_accepted_for(package, tmp_path):
    settings = settings_for(tmp_path, package, conditions={"station": ["CT1"]})
    acceptances.check_required_acceptances(settings)
    job, known = SimpleNamespace(model="lung", model_hash="1"), Acceptances(settings, lambda model, version: None)
    assert known.reason_against(job, {"StationName": "CT1"}, {}) == ""
    assert "not accepted here for station CT2" in known.reason_against(job, {"StationName": "CT2"}, {})
    assert "not accepted here for station unknown" in known.reason_against(job, {}, {})


def test_a_package_that_was_not_accepted_starts_no_node_and_answers_nothing(package, tmp_path):
    settings = settings_for(tmp_path, package, verdict="not accepted")
    with pytest.raises(UsageError, match=r"node\.toml, line 4.*the verdict is 'not accepted'"):
        acceptances.check_required_acceptances(settings)
    known = Acceptances(settings, lambda model, version: None)
    job = SimpleNamespace(model="lung", model_hash="1")
    assert "the package was not accepted here" in known.reason_against(job, {}, {})
    with pytest.raises(UsageError, match="needs the folder of its acceptance"):
        (tmp_path / "other.toml").write_text('[models.lung]\npath = "lung"\nrequire_acceptance = true\n')
        configuration.read_settings(tmp_path / "other.toml")


def test_a_condition_that_the_node_knows_of_no_job_is_refused_at_start(package, tmp_path):
    settings = settings_for(tmp_path, package, conditions={"ward": ["A"]})
    with pytest.raises(UsageError, match="by ward, which the node knows of no job"):
        acceptances.check_required_acceptances(settings)
    given = {"ward": CovariateValue("A", "fhir")}
    known = Acceptances(settings, lambda model, version: None)
    assert known.reason_against(SimpleNamespace(model="lung", model_hash="1"), {}, given) == ""
