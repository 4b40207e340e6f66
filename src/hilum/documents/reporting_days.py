"""Days on which reports of an incident are due, by what it did."""

from __future__ import annotations

from datetime import date, timedelta

# Of an incident: harm to public health, a death, a serious decline, one of these that could have been, none of them.
KINDS = ("public threat", "death", "decline", "possible", "none")
# Days within which a manufacturer reports: 21 CFR 803.50 and 803.53, and Article 87 of Regulation (EU) 2017/745.
FDA_DAYS, FDA_WORK_DAYS = 30, 5
EU_DAYS = {"public threat": 2, "death": 10, "decline": 10, "possible": 15}


def due_days(kind: str, known: date) -> dict[str, str]:
    """{authority and its rule: the last day}; work days are those from Monday to Friday, holidays are not known."""
    if kind not in EU_DAYS:
        return {"none": "no single report is due; it counts for trends"}
    last, work_days = known, 0
    while work_days < FDA_WORK_DAYS:
        last += timedelta(days=1)
        work_days += last.weekday() < 5
    return {
        f"FDA, {FDA_DAYS} days": (known + timedelta(days=FDA_DAYS)).isoformat(),
        f"FDA, {FDA_WORK_DAYS} work days where an action must prevent an unreasonable risk": last.isoformat(),
        f"EU, {EU_DAYS[kind]} days": (known + timedelta(days=EU_DAYS[kind])).isoformat(),
    }
