"""The privacy budget of each site: what of it leaves the site, and `privacy.json` of the job.

Noise is added at the site, to every step: whatever its updates become later, at the server too, tells no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from pydantic import TypeAdapter, ValidationError

from hilum.errors import IntegrityError
from hilum.federation.exchanges import Facts
from hilum.planning import PlanSettings
from hilum.runs import privacy_record
from hilum.runs.privacy_record import PRIVACY, SCHEMA, TRAINED, VALIDATED
from hilum.runtime import record_files
from hilum.training.privacy_accounting import BudgetRow

# Numbers that leave a site without noise, whose cases they come from, and how.
OVER_SITES = (
    ("plan.yaml", TRAINED, "each site sends labels, channels and medians of groups of federation.min_count like cases"),
    ("shares of the sites", TRAINED, "each site sends how many cases it has; records leave small numbers out"),
    ("training.steps", TRAINED, "where the clock decides: by the pace of a few steps at each site"),
    ("membership", TRAINED, "where it is asked for: figures of an attack by the losses of training and test cases"),
    ("choice of the round", VALIDATED, "where federation.select says so: the mean of the sites' metric"),
    ("temperature", VALIDATED, "sums of derivatives of losses, of federation.min_count patients of a site at least"),
)
_rows = TypeAdapter(list[BudgetRow])


def shown_rows(rows: Sequence[BudgetRow], settings: PlanSettings) -> list[BudgetRow]:
    """Rows of a site's budget as they leave it.

    Of fewer units than `federation.min_count` their number is null, and what it follows from: the sampling rate, and
    the noise that was solved for it. Epsilon is then that of the plan, which is above what is spent.
    """
    if all((row["units"] or 0) >= settings.federation.min_count for row in rows):
        return [*rows]
    hidden = {"units": None, "sampling_rate": None, "noise_multiplier": None}
    bounds = [None if row["epsilon"] is None else settings.privacy.epsilon for row in rows]
    return [cast("BudgetRow", {**row, **hidden, "epsilon": one}) for row, one in zip(rows, bounds, strict=True)]


def read_rows(facts: Facts, site: str, settings: PlanSettings, out: Path) -> list[BudgetRow]:
    """The rows that a site has sent to the job in `out`.

    IntegrityError where it has a budget, and does not say what it has spent, or says less than before.
    """
    if settings.privacy.epsilon is None:
        return []
    try:
        rows = [cast("BudgetRow", {**row, "site": site}) for row in _rows.validate_python(facts.get("privacy"))]
        steps, before = (sum(row["steps"] for row in own if row["site"] == site) for own in (rows, _known_rows(out)))
        if steps >= max(1, before):
            return rows
        problem = f"{steps} steps, after {before} in an earlier answer"
    except ValidationError as error:
        problem = str(error.errors()[0]["msg"])
    remedy = "Let it go on in its own folder of this job, by the version of the server"
    raise IntegrityError(f"does not say what of its privacy budget is spent ({problem})", f"site {site}", remedy)


def note_rows(out: Path, latest: Mapping[str, Sequence[BudgetRow]]) -> None:
    """Write into `privacy.json` what sites have spent by their last answer; that of others stays, as they may be gone.

    A round that is made once more counts no step twice: a site says what it has spent in all.
    """
    known = _known_rows(out)
    if rows := [row for row in known if not latest.get(row["site"])] + [row for site in latest for row in latest[site]]:
        privacy_record.write_privacy(out, sorted(rows, key=lambda row: row["site"]), OVER_SITES)


def budget_sentences(out: Path) -> list[str]:
    """What the budgets of a job come to, in words; nothing where there are none."""
    if not (rows := _known_rows(out)):
        return []
    claimed = [row["epsilon"] for row in rows if row["epsilon"] is not None]
    units = " or ".join(dict.fromkeys(row["unit"] for row in rows))
    bound = (
        f"of each {units} they tell at most epsilon {max(claimed):.3g}, but for a chance of "
        f"{max(row['delta'] for row in rows):.3g}"
        if len(claimed) == len(rows)
        else "but the plan's seed chose it, so that nothing is claimed"
    )
    return [
        f"Each site added noise to every step, before its weights left it: {bound}. {PRIVACY} has the budget of each "
        "site, and which numbers left it without noise."
    ]


def _known_rows(out: Path) -> list[BudgetRow]:
    return record_files.read_json(out / PRIVACY, SCHEMA)["rows"] if (out / PRIVACY).is_file() else []
