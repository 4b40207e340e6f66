"""The urgency of an outcome, and the notice of it that people get."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from isocenter.files import file_hash
from isocenter.runtime import write_json
from isocenter.service.records.jobs import Answer, Job, Outcome
from isocenter.service.records.notices import NOTICE, Notice, notice_key
from isocenter.service.routing.urgency import Urgency, most_urgent
from isocenter.service.settings import PRIORITIES, Notify, Settings


def with_urgency(outcome: Outcome, job: Job, study: str, settings: Settings, room: Path) -> Outcome:
    """The outcome with the priority that its findings give, and with `notice.json` where somebody is to know.

    study: its UID, all that a notice says of whom it is about
    """
    urgency = most_urgent(outcome.findings, settings.urgent)
    outcome = replace(outcome, urgency=urgency)
    due = {} if urgency is None else recipients(one for one in settings.notify if _wants(one, urgency))
    if urgency is None or not due:
        return outcome
    notice = Notice(notice_key(job.job), urgency.finding, urgency.priority, due)
    link = f"{settings.http.reached}/api/jobs/{job.job}"
    columns = {"notice": notice.notice, "study": study, "job": job.job}
    columns |= {"finding": notice.finding, "priority": notice.priority, "link": link}
    path = room / NOTICE
    write_json(path, "isocenter.notice", columns)
    file = Answer(NOTICE, "notice", path.stat().st_size, file_hash(path))
    return replace(outcome, notice=notice, answers=[*outcome.answers, file])


def _wants(notify: Notify, urgency: Urgency) -> bool:
    return not notify.of_alerts and urgency.rank <= PRIORITIES.index(notify.when)


def recipients(listed: Iterable[Notify]) -> dict[str, float]:
    """{recipient: s after which a notice goes there}, in the order of the list."""
    due, after = dict[str, float](), 0.0
    for notify in listed:
        due.setdefault(notify.recipient, after)
        after += 60 * notify.after_min
    return due
