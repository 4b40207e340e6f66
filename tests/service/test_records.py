"""The records of a node: what is claimed is claimed once, what is written is written by who holds the claim."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import event, select, text, update

from hilum.errors import ResourceError
from hilum.service.records import delivery_outbox, migration, record_database, tables
from hilum.service.records import study_index as index_of_records
from hilum.service.records.delivery_outbox import Outbox
from hilum.service.records.job_queue import REJECTION, JobOutcome, Jobs, ResultFile, WantedJob
from hilum.service.records.record_database import DatabaseClock, RecordError
from hilum.service.records.study_index import Arrival, StudyIndex
from hilum.values import ANSWERED
from hilum.values.case_outcome import ABSTAINED, REFUSED
from ports import free_port

RULE = {"rule": "all", "model": "m", "model_hash": "h", "inputs": {"series": {"image": "s"}}, "revision": 1}
SEG = ResultFile("case.dcm", "seg", 10, "0" * 64, "1.2.3", "2.25.7")


def arrival(number: int, study: str = "a" * 32, series: str = "b" * 32) -> Arrival:
    key = f"{number:032d}"
    place = f"studies/{study}/{series}/{key}.dcm"
    return Arrival(study, series, key, "1.1", "1.2", f"1.3.{number}", "1.4", "1.5", place, 9, "0" * 64, "pacs", "store")


@pytest.fixture
def queue(database):
    StudyIndex(database).add([arrival(1)])
    return Jobs(database, lease_s=60, attempts=3)


def add(queue: Jobs, inputs_hash: str = "i", **columns) -> bool:
    with queue.database.write() as connection:
        return queue.add(connection, study="a" * 32, inputs_hash=inputs_hash, **{**RULE, "priority": 2, **columns})


def wanted(inputs_hash: str) -> WantedJob:
    """The job of `add`, as the rules want it."""
    return WantedJob(RULE["rule"], RULE["model_hash"], inputs_hash, RULE["inputs"])


def rows(database, table):
    with database.read() as connection:
        return connection.execute(select(table)).all()


def expire(queue: Jobs) -> None:
    """As if the lease had run out."""
    with queue.database.write() as connection:
        connection.execute(update(tables.JOBS).values(lease_until=DatabaseClock() - 1))


def test_the_migrations_make_the_tables_that_the_code_states(database):
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []


def test_what_the_keeper_asks_in_every_round_is_found_by_an_index(tmp_path):
    url = f"sqlite:///{tmp_path / 'node.sqlite'}"
    database, asked = migration.migrate_database(url), list[tuple[str, Any]]()
    event.listen(database.reader, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
    index = StudyIndex(database)
    index.add([arrival(1)])
    index.complete("a" * 32, 1, {}, {})
    assert [row.study for row in index.to_route(9)] == ["a" * 32]
    index.overdue(0, 9)
    index.settle()
    index.contest("a" * 32, "aside/1/object.dcm")
    with database.engine.connect() as connection:
        plans = [
            row.detail
            for words, values in asked
            if words.startswith("SELECT")
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {words}", values)
        ]
    database.close()
    assert len(plans) >= 4
    assert [plan for plan in plans if plan.startswith("SCAN")] == ["SCAN studies USING INDEX studies_to_route"]


def test_a_study_rule_model_and_inputs_have_one_job(queue):
    assert [add(queue), add(queue), add(queue, "other inputs")] == [True, False, True]


def test_the_most_urgent_job_is_claimed_first_then_the_oldest(queue):
    for name, priority in (("first", 2), ("second", 2), ("urgent", 1)):
        add(queue, name, priority=priority, rule=name)
    assert [queue.claim("w").rule for _ in range(3)] == ["urgent", "first", "second"]
    assert queue.claim("w") is None


def test_many_workers_at_once_claim_each_job_once(queue):
    for number in range(40):
        add(queue, str(number))
    claimed: list[str] = []

    def work(name: str) -> None:
        while (job := queue.claim(name)) is not None:
            claimed.append(job.job)

    workers = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(claimed) == len(set(claimed)) == 40


def test_a_worker_whose_lease_ran_out_can_no_longer_write(queue, database):
    add(queue)
    slow = queue.claim("slow")
    expire(queue)
    quick = queue.claim("quick")
    assert quick.fence == slow.fence + 1
    assert not queue.renew(slow)
    assert not queue.finish(slow, JobOutcome(ANSWERED, answers=[SEG]))
    assert queue.finish(quick, JobOutcome(ANSWERED, answers=[SEG], findings=[{"concept": "nodule"}]))
    assert [row.outcome for row in rows(database, tables.JOBS)] == ["answered"]
    assert len(rows(database, tables.ANSWERS)) == len(rows(database, tables.FINDING_ROWS)) == 1


def test_files_are_published_only_by_who_holds_the_claim(queue):
    add(queue)
    published = []
    slow = queue.claim("slow")
    expire(queue)
    queue.finish(queue.claim("quick"), JobOutcome(ANSWERED), publish=lambda: published.append("quick"))
    queue.finish(slow, JobOutcome(ANSWERED), publish=lambda: published.append("slow"))
    assert published == ["quick"]


def test_a_job_that_kills_its_workers_goes_aside_with_its_reason(queue, database):
    add(queue)
    for _ in range(3):
        assert queue.claim("w") is not None
        assert queue.release("w") == 1
    assert queue.claim("w") is None
    [row] = rows(database, tables.JOBS)
    assert (row.state, row.attempts) == ("aside", 3)
    assert "died 3 times" in row.reason
    assert queue.retry(row.job)
    assert queue.claim("w").attempts == 1


def test_a_job_given_back_at_a_stop_costs_none_of_its_attempts(queue):
    add(queue)
    for _ in range(5):
        job = queue.claim("w")
        assert job.attempts == 1
        assert queue.give_back(job, counts=False)


def test_a_cancelled_job_takes_no_result(queue, database):
    add(queue)
    job = queue.claim("w")
    assert queue.cancel(job.job)
    assert not queue.finish(job, JobOutcome(ANSWERED))
    assert [row.state for row in rows(database, tables.JOBS)] == ["cancelled"]


def test_only_what_was_cancelled_has_an_event(queue, database):
    add(queue)
    done = queue.claim("w")
    queue.finish(done, JobOutcome(ANSWERED, is_empty=True))
    add(queue, "other")
    assert [queue.cancel(job) for job in (done.job, "f" * 32)] == [False, False]
    assert [row.action for row in rows(database, tables.AUDIT)] == ["prediction"]
    waiting = queue.claim("w").job
    assert queue.cancel(waiting) and not queue.cancel(waiting)
    assert [(row.action, row.object) for row in rows(database, tables.AUDIT)][1:] == [("job cancelled", waiting)]


def test_a_late_image_supersedes_the_jobs_whose_inputs_changed(queue, database):
    index = StudyIndex(database)
    assert index.complete("a" * 32, 1, {}, {"b" * 32: {"modality": "MR"}})
    add(queue, "old")
    assert index.add([arrival(1), arrival(2)]) == 1
    [study] = rows(database, tables.STUDIES)
    assert (study.revision, study.state, study.instances) == (2, "receiving", 2)
    assert index.complete("a" * 32, 2, {}, {})
    with database.write() as connection:
        queue.add(connection, study="a" * 32, inputs_hash="new", **{**RULE, "revision": 2, "priority": 2})
        index.note_routing(connection, "a" * 32, 2, [wanted("new")])
    assert {row.inputs_hash: row.state for row in rows(database, tables.JOBS)} == {
        "old": "superseded",
        "new": "waiting",
    }


def test_a_study_that_grew_while_its_headers_were_read_is_not_complete(queue, database):
    index = StudyIndex(database)
    assert index.complete("a" * 32, 1, {}, {})
    index.add([arrival(2)])
    assert not index.complete("a" * 32, 1, {}, {})


def test_a_study_is_done_when_its_jobs_are(queue, database):
    index = StudyIndex(database)
    index.complete("a" * 32, 1, {}, {})
    add(queue)
    with database.write() as connection:
        index.note_routing(connection, "a" * 32, 1, [wanted("i")])
    assert index.settle() == []
    queue.finish(queue.claim("w"), JobOutcome(ABSTAINED, "unlike"))
    with database.write() as connection:
        index.note_routing(connection, "a" * 32, 1, [wanted("i")])
    assert [(one.state, one.outcome) for one in index.settle()] == [("done", ABSTAINED)]


def settled(queue, jobs_of_study, reason=None):
    """(state, outcome, reason) of the study, once the rules have seen it and nothing is left to do."""
    index = StudyIndex(queue.database)
    index.complete("a" * 32, 1, {}, {})
    with queue.database.write() as connection:
        index.note_routing(connection, "a" * 32, 1, jobs_of_study, reason)
    index.settle()
    [row] = rows(queue.database, tables.STUDIES)
    return row.state, row.outcome, row.reason


def told(queue):
    """(action, detail) of the last event."""
    row = rows(queue.database, tables.AUDIT)[-1]
    return row.action, row.detail


def test_a_study_that_no_rule_takes_is_refused_with_its_reason_and_an_event(queue):
    assert settled(queue, [], "no rule takes it") == ("done", "refused", "no rule takes it")
    assert told(queue) == ("study done", {"study": "a" * 32, "outcome": "refused", "reason": "no rule takes it"})


@pytest.mark.parametrize(
    ("outcomes", "stated"),
    [
        (
            {"first": JobOutcome(ANSWERED, "nothing is there", is_empty=True), "second": JobOutcome(ANSWERED)},
            (ANSWERED, None),
        ),
        ({"first": JobOutcome(REFUSED, "no grid"), "second": JobOutcome(ABSTAINED, "unlike")}, (ABSTAINED, "unlike")),
        ({"first": JobOutcome(ANSWERED, "nothing is there", is_empty=True)}, (ANSWERED, "nothing is there")),
    ],
)
def test_the_outcome_of_a_study_is_the_best_of_its_jobs(queue, outcomes, stated):
    for name in outcomes:
        add(queue, name)
    for outcome in outcomes.values():
        queue.finish(queue.claim("w"), outcome)
    assert settled(queue, [wanted(name) for name in outcomes]) == ("done", *stated)


def test_a_study_whose_job_is_aside_is_aside_until_that_is_done_again(queue, database):
    add(queue)
    for _ in range(3):
        queue.claim("w")
        queue.release("w")
    assert queue.claim("w") is None
    state, outcome, reason = settled(queue, [wanted("i")])
    assert (state, outcome) == ("aside", None) and "died 3 times" in reason
    assert queue.retry(rows(database, tables.JOBS)[0].job)
    assert [(row.state, row.reason) for row in rows(database, tables.STUDIES)] == [("complete", None)]
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED))
    assert settled(queue, [wanted("i")]) == ("done", ANSWERED, None)


def test_a_study_that_was_given_another_object_of_the_same_uid_is_aside_until_somebody_has_looked(queue, database):
    index = StudyIndex(database)
    assert settled(queue, [], "no rule takes it")[0] == "done"
    assert index.contest("a" * 32, "aside/1/object.dcm") and not index.contest("a" * 32, "aside/1/object.dcm")
    state, outcome, reason = settled(queue, [], "no rule takes it")
    assert (state, outcome) == ("aside", "refused")
    assert reason.startswith("another object with the same UID lies in aside/1: release it, or reroute the study; no")
    assert not index.contest("c" * 32, "aside/2/object.dcm")
    assert index.reroute("a" * 32)
    assert settled(queue, [], "no rule takes it") == ("done", "refused", "no rule takes it")


def test_a_study_that_gets_something_to_do_while_it_is_looked_at_has_no_event_and_is_not_done(
    queue, database, monkeypatch
):
    index, look = StudyIndex(database), index_of_records._study_outcome
    index.complete("a" * 32, 1, {}, {})
    with database.write() as connection:
        index.note_routing(connection, "a" * 32, 1, [])

    def looked(connection, row):
        seen = look(connection, row)
        index.contest("a" * 32, "aside/1/object.dcm")  # as the keeper does for what has just come
        return seen

    monkeypatch.setattr(index_of_records, "_study_outcome", looked)
    assert index.settle() == []
    assert [row.state for row in rows(database, tables.STUDIES)] == ["complete"]
    assert [row.action for row in rows(database, tables.AUDIT)] == ["study received", "object aside"]
    monkeypatch.undo()
    with database.write() as connection:
        index.note_routing(connection, "a" * 32, 1, [])
    assert [one.state for one in index.settle()] == ["aside"]


@pytest.mark.parametrize("value", [{"frames": 10**20}, {"frames": 10**9000}, {"manufacturer": "a\0b"}])
def test_a_value_that_the_database_cannot_hold_is_said_to_be_that_and_none_of_the_network(queue, database, value):
    if "manufacturer" in value and not database.skips_locked:
        pytest.skip("SQLite holds a zero in a text")
    with pytest.raises(RecordError, match="cannot hold what it is given") as error:
        StudyIndex(database).complete("a" * 32, 1, {}, {"b" * 32: value})
    assert "Check that it is running" not in str(error.value)
    assert [row.state for row in rows(database, tables.STUDIES)] == ["receiving"]


def test_what_is_wrong_with_a_value_is_said_without_the_value(database):
    if not database.skips_locked:
        pytest.skip("SQLite takes any value in any column")
    with pytest.raises(RecordError, match="invalid input syntax for type integer") as error, database.read() as asked:
        asked.execute(text("SELECT CAST('Doe^Jane' AS integer)"))
    assert "Doe" not in str(error.value)


def test_a_database_that_is_not_there_does_not_answer():
    away = record_database.open_database(f"postgresql://node@127.0.0.1:{free_port()}/none")
    with pytest.raises(ResourceError, match="does not answer"):
        away.now()
    with pytest.raises(ResourceError, match="does not answer"), record_database.only_keeper(away):
        pass


def test_a_superseded_job_whose_inputs_are_wanted_again_is_done_anew(queue, database):
    """As of two objects that change places, and back: the study would be refused without a reason."""
    add(queue)
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs"]))
    assert settled(queue, [])[1] == REFUSED
    assert [row.state for row in rows(database, tables.JOBS)] == ["superseded"]
    assert add(queue) and not add(queue)
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs"]))
    [row] = rows(database, tables.JOBS)
    assert (row.state, row.outcome, row.attempts) == ("sending", ANSWERED, 1)
    assert [one.sop_instance_uid for one in Outbox(database).claim("pacs")] == ["2.25.7"]


def test_a_superseded_job_that_a_peer_was_told_to_reject_is_wanted_again_as_another_one(queue, database):
    add(queue)
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs", "archive"]))
    outbox = Outbox(database)
    outbox.sent(outbox.claim("pacs")[0], "2.25.8")
    assert outbox.to_reject(["pacs"]) == []  # it holds still
    settled(queue, [])
    [due] = outbox.to_reject(["pacs", "archive"])
    assert (due.peer, due.objects) == ("pacs", {"case.dcm": "2.25.8"})
    note = ResultFile(delivery_outbox.note_name("pacs"), REJECTION, 9, "0" * 64, "1.2.4", "2.25.9")
    assert outbox.add_note(due, note)
    assert outbox.to_reject(["pacs"]) == []
    assert [one.name for one in outbox.claim("pacs")] == ["rejection_pacs.dcm"]
    assert add(queue) and not add(queue)
    first, second = sorted(rows(database, tables.JOBS), key=lambda row: row.version)
    assert (first.state, second.state, second.version) == ("superseded", "waiting", 2)
    assert first.inputs_hash == second.inputs_hash


def test_a_job_done_again_whose_answers_have_all_arrived_is_done(queue, database):
    add(queue)
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs"]))
    outbox = Outbox(database)
    outbox.sent(outbox.claim("pacs")[0])
    assert queue.retry(rows(database, tables.JOBS)[0].job)
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs"]))
    assert outbox.claim("pacs") == []
    assert [row.state for row in rows(database, tables.JOBS)] == ["done"]


def test_an_answer_that_a_peer_would_not_take_is_sent_again_when_its_job_is_done_again(queue, database):
    add(queue)
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs"]))
    outbox = Outbox(database)
    outbox.note_refusal(outbox.claim("pacs")[0], "it takes no SEG")
    assert queue.retry(rows(database, tables.JOBS)[0].job)
    assert outbox.claim("pacs") == []  # before the job is done again
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs"]))
    assert [row.state for row in rows(database, tables.JOBS)] == ["sending"]
    assert [(one.name, one.attempts) for one in outbox.claim("pacs")] == [("case.dcm", 1)]


def test_answers_wait_for_each_peer_until_it_has_them(queue, database, monkeypatch):
    monkeypatch.setattr("hilum.service.records.delivery_outbox.FIRST_S", 3600.0)
    add(queue)
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs", "archive"]))
    outbox = Outbox(database)
    [to_pacs] = outbox.claim("pacs")
    assert outbox.claim("pacs") == []
    outbox.sent(to_pacs)
    assert [row.state for row in rows(database, tables.JOBS)] == ["sending"]
    [to_archive] = outbox.claim("archive")
    outbox.note_failure(to_archive, "it does not answer")
    assert outbox.claim("archive") == []  # for a while
    with database.write() as connection:
        connection.execute(update(tables.DELIVERIES).values(next_at=0.0))
    [again] = outbox.claim("archive")
    assert again.attempts == 2
    outbox.sent(again)
    outbox.note_commitment(["2.25.7"], "pacs")
    assert [row.state for row in rows(database, tables.JOBS)] == ["done"]
    assert {row.peer: row.state for row in rows(database, tables.DELIVERIES)} == {
        "pacs": "committed",
        "archive": "sent",
    }


@pytest.mark.parametrize("ended", ["cancelled", "superseded"])
def test_what_a_job_has_not_sent_when_it_is_ended_stays_here(queue, database, ended):
    add(queue)
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs", "archive"]))
    outbox = Outbox(database)
    outbox.sent(outbox.claim("pacs")[0])
    if ended == "cancelled":
        assert queue.cancel(rows(database, tables.JOBS)[0].job)
    else:
        assert settled(queue, [])[0] == "done"
    assert outbox.claim("archive") == []
    assert {(row.peer, row.state, row.reason) for row in rows(database, tables.DELIVERIES)} == {
        ("pacs", "sent", None),
        ("archive", "aside", f"its job is {ended}"),
    }


def test_a_peer_that_is_away_is_tried_after_growing_pauses_of_five_minutes_at_most(queue, database):
    add(queue)
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs"]))
    outbox, pauses = Outbox(database), []
    for _ in range(11):
        outbox.note_failure(outbox.claim("pacs")[0], "it does not answer")
        with database.write() as connection:
            pauses.append(connection.execute(select(tables.DELIVERIES.c.next_at - DatabaseClock())).scalar_one())
            connection.execute(update(tables.DELIVERIES).values(next_at=0.0))
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300], abs=0.5)


def test_a_peer_that_is_away_for_three_days_is_given_up(queue, database):
    add(queue)
    queue.finish(queue.claim("w"), JobOutcome(ANSWERED, answers=[SEG], send=["pacs"]))
    outbox = Outbox(database)
    with database.write() as connection:
        connection.execute(update(tables.DELIVERIES).values(created_at=DatabaseClock() - 73 * 3600))
    outbox.note_failure(outbox.claim("pacs")[0], "it does not answer")
    assert [(row.state, row.reason) for row in rows(database, tables.DELIVERIES)] == [("aside", "it does not answer")]
    assert [row.state for row in rows(database, tables.JOBS)] == ["done"]
