"""Watches over a stream: of what goes in, what comes out, and whether outcomes come as the probabilities say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.lazy import pandas as pd
from hilum.lazy import special, stats
from hilum.monitoring import case_stream, e_detectors
from hilum.monitoring.case_stream import (
    CONCEPT,
    INCLUSION,
    OPERATION,
    OUTPUT,
    PROBABILITY,
    CaseStream,
    WatchedColumn,
)
from hilum.monitoring.e_detectors import FEWEST, OUTERMOST, Watch
from hilum.values import Floats

# Log-odds by which probabilities may be off before the watch on outcomes rings.
TOLERANCE = 0.2
# Share of levels that may be named though nothing changed in them.
FALSELY_NAMED = 0.1
# Cases of which a share of ill people is estimated, where it goes with the season.
SEASON = 100
# p below which outcomes disagree with the share of ill people that the probabilities show.
DISAGREE = 0.01
# The watch of how many cases come.
VOLUME_A_DAY = "cases a day"
MISSING = "values are missing"
# New levels that an alarm names, the most frequent first.
MOST_NEW_LEVELS = 3
# Cases by which the time of a change may be wrong.
ABOUT = 20


@dataclass(frozen=True)
class Drift:
    """One row of `drift.csv`: a watch over all cases, or over those of one level of an attribute.

    scope:        empty for all, else "station=3f2a"
    log_evidence: at the end; of all cases the mean over all scopes, by which the alarm is given
    alarm_at:     of a level, that of the watch, if the level carries the evidence (e-BH)
    since:        the most probable time of the change
    because:      what else is known of the alarm
    """

    watch: str
    kind: str
    scope: str
    cases: int
    log_evidence: float
    limit: float
    alarm_at: str = ""
    since: str = ""
    because: str = ""
    is_urgent: bool = False


@dataclass(frozen=True)
class Miscalibration:
    """Log-odds by which outcomes of a baseline differ from what its probabilities say, and the standard error."""

    offset: float
    error: float


def measure_miscalibration(baseline: CaseStream) -> dict[str, Miscalibration]:
    """{finding: its miscalibration} at a site, where at least 20 outcomes of its baseline are known, of both kinds.

    What was sampled to be read counts by the inverse of its chance.
    """
    chance = baseline.numbers(INCLUSION)
    by_finding = dict[str, Miscalibration]()
    for finding in baseline.findings:
        probabilities = baseline.numbers(f"{PROBABILITY}{finding}")
        outcomes = baseline.outcomes(finding)
        usable = np.isfinite(probabilities) & np.isfinite(outcomes) & ~(chance <= 0)
        happened = outcomes[usable]
        if len(happened) < FEWEST or len(set(happened)) < 2:
            continue
        weights = 1 / np.where(np.isfinite(chance[usable]), chance[usable], 1.0)
        odds = _log_odds(probabilities[usable])
        offset = _offset(odds, happened, weights)
        p = special.expit(odds + offset)
        spread = np.sqrt(np.sum(np.square(weights * (happened - p)))) / (weights @ (p * (1 - p)))
        by_finding[finding] = Miscalibration(offset, float(spread))
    return by_finding


def recalibrate_stream(stream: CaseStream, wrong: Mapping[str, Miscalibration]) -> CaseStream:
    """The stream with the probabilities that hold at the site."""
    table = stream.table.copy()
    for finding, error_at_site in wrong.items():
        if (name := f"{PROBABILITY}{finding}") in table:
            probabilities = stream.numbers(name)
            moved = special.expit(_log_odds(probabilities) + error_at_site.offset)
            table[name] = [str(p) if np.isfinite(p) else "" for p in moved]
    return replace(stream, table=table)


def drift_rows(
    reference: CaseStream,
    stream: CaseStream,
    by: str | None,
    run_length: float,
    wrong: Mapping[str, Miscalibration] | None = None,
    until: pd.Timestamp | None = None,
) -> list[Drift]:
    """The rows of all watches; without a change an alarm of any within m cases has at most the chance m / run_length.

    by:    attributes to whose levels a change is traced, as in `groups_by_attribute`
    wrong: of the probabilities at the site, which the watch on outcomes corrects; it rings only beyond twice the error
           of that, too
    until: when the stream was read, so that silence since its last case counts; None: at its last case
    """
    looked_at = list(case_stream.watched_columns(reference, stream))
    findings = [one for one in stream.findings if np.isfinite(stream.outcomes(one)).any()]
    length_of_each = run_length * (1 + len(looked_at) + len(findings))  # all watches share the false alarms
    scopes = _scopes(reference, stream, by)
    rows = list[Drift]()
    patients = stream.patients
    has_times = not reference.at.isna().all()
    strata_before = reference.strata
    strata_now = stream.strata
    for column in looked_at:
        watches = {}
        for scope, (in_scope, cases) in scopes.items():
            in_reference = in_scope & column.is_compared
            indices = np.flatnonzero(cases)
            if scope and (np.count_nonzero(in_reference) < FEWEST or not len(indices)):
                continue
            strata = (strata_before[in_reference], strata_now[cases]) if has_times else None
            own_patients = patients[cases]
            found = e_detectors.watch_values(
                column.reference[in_reference],
                column.values[cases],
                run_length=length_of_each,
                strata=strata,
                patients=own_patients,
            )
            watches[scope] = (indices, found)
        made = _rows(column.name, column.kind, watches, stream, length_of_each)
        explained = [_with_missing(row, column, stream, scopes[row.scope][1]) for row in made]
        rows += [_with_new_levels(row, column, stream) for row in explained]
    for finding in findings:
        own_error = (wrong or {}).get(finding, Miscalibration(0.0, 0.0))
        before, probabilities = (
            special.expit(_log_odds(one.numbers(f"{PROBABILITY}{finding}")) + own_error.offset)
            for one in (reference, stream)
        )
        tolerance = TOLERANCE + 2 * own_error.error
        outcomes = stream.outcomes(finding)
        watches = {}
        for scope, (_, cases) in scopes.items():
            indices = np.flatnonzero(cases)
            if len(indices):
                found = e_detectors.watch_calibration(
                    probabilities[indices], outcomes[indices], run_length=length_of_each, tolerance=tolerance
                )
                watches[scope] = (indices, found)
        rows += [
            _explain_break(row, before[np.isfinite(before)], probabilities, outcomes, stream)
            for row in _rows(finding, CONCEPT, watches, stream, length_of_each)
        ]
    rows += _volume(reference, stream, length_of_each, until)
    groups = stream.groups(by)
    return [_with_changes(row, stream, groups) for row in rows]


def _volume(reference: CaseStream, stream: CaseStream, run_length: float, until: pd.Timestamp | None) -> list[Drift]:
    """The watch of how many cases come a day, among days of the week or of the weekend; none for a short reference."""
    offset = stream.local[-1] - stream.at[-1].tz_localize(None)
    ended = None if until is None else until.tz_localize(None) + offset
    before = _daily(reference.local, None)
    now = _daily(stream.local, ended)
    if len(before) < FEWEST or not len(now):
        return []
    # A day is as many cases as came in one: so the watch has its share of the false alarms.
    length = max(2.0, run_length / max(1.0, float(before.mean())))
    weekends = tuple(np.asarray(pd.DatetimeIndex(days.index).dayofweek >= 5) for days in (before, now))
    found = e_detectors.watch_values(
        before.to_numpy(), now.to_numpy(), run_length=length, strata=(weekends[0], weekends[1])
    )
    row = Drift(VOLUME_A_DAY, OPERATION, "", len(stream), float(found.log_evidence[-1]), found.limit)
    if found.alarm is None or found.change is None:
        return [row]
    days = pd.DatetimeIndex(now.index).shift(1, freq=-offset).tz_localize("UTC")
    at, since = (days[place].isoformat() for place in (found.alarm, found.change))
    words = f"{now.iloc[found.change : found.alarm + 1].mean():.1f} cases a day, {before.mean():.1f} before"
    is_urgent = bool(found.log_evidence.max() >= found.limit + np.log(10))
    return [replace(row, alarm_at=at, since=since, because=words, is_urgent=is_urgent)]


def _daily(at: pd.DatetimeIndex, until: pd.Timestamp | None) -> pd.Series:
    """Cases of each whole day between the first and the last, or a later time, by the clock of the site."""
    known = at[at.notna()]
    if not len(known):
        return pd.Series(dtype=float)
    first, last = known.min().ceil("D"), (known.max() if until is None else until).floor("D")
    days = pd.date_range(first, last, freq="D", inclusive="left")
    return pd.Series(1.0, index=known.floor("D")).groupby(level=0).sum().reindex(days, fill_value=0.0)


def _scopes(
    reference: CaseStream, stream: CaseStream, by: str | None
) -> dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """{scope: (cases of the reference, cases of the stream)}, all of them first."""
    everyone = (np.ones(len(reference), dtype=bool), np.ones(len(stream), dtype=bool))
    before = reference.groups(by)
    now = stream.groups(by)
    return {
        "": everyone,
        **{
            f"{name}={level}": (before[name] == level, own == level)
            for name, own in now.items()
            for level in sorted(set(map(str, own)))
        },
    }


def _rows(
    name: str, kind: str, watches: dict[str, tuple[NDArray[np.intp], Watch]], stream: CaseStream, run_length: float
) -> list[Drift]:
    """The row of all cases, then those of levels. The mean of the scopes' evidence decides: it is an e-detector too."""
    evidence = np.full((len(watches), len(stream)), -np.inf)
    for index, (indices, found) in enumerate(watches.values()):
        evidence[index, indices] = found.log_evidence
        latest = np.maximum.accumulate(np.where(np.isin(np.arange(len(stream)), indices), np.arange(len(stream)), -1))
        evidence[index] = np.where(latest >= 0, evidence[index, latest], -np.inf)
    combined = np.logaddexp.reduce(evidence, axis=0) - np.log(len(watches))
    limit = float(np.log(run_length))
    rung = np.flatnonzero(combined >= limit)
    alarm = int(rung[0]) if len(rung) else None
    # Where a change is shows best when the evidence of it is at its highest, which may be after the alarm.
    highest = int(np.argmax(combined))
    named = _carriers(evidence[:, highest], watches, highest) if alarm is not None else set()
    rows = []
    for index, (scope, (indices, found)) in enumerate(watches.items()):
        shown = combined if not scope else evidence[index]
        row = Drift(name, kind, scope, len(indices), float(shown[-1]), limit)
        if alarm is not None and (not scope or scope in named):
            best = int(np.argmax(evidence[:, alarm])) if not scope else index
            owner = list(watches.values())[best]
            row = replace(
                row,
                alarm_at=stream.at[alarm].isoformat(timespec="seconds"),
                since=stream.at[_began(owner, alarm)].isoformat(timespec="seconds"),
                is_urgent=bool(combined.max() >= limit + np.log(10)),
                because=MISSING if found.is_missing else "",
            )
        rows.append(row)
    return rows


def _began(owner: tuple[NDArray[np.intp], Watch], alarm: int) -> int:
    """The case at which the evidence of a scope began to grow to what it is at the alarm."""
    indices, found = owner
    if found.change is not None:
        return min(int(indices[found.change]), alarm)
    upto = found.log_evidence[: int(np.searchsorted(indices, alarm, side="right"))]
    low = np.flatnonzero(upto <= 0)
    return int(indices[low[-1]]) if len(low) else int(indices[0])


def _carriers(log_evidence: Floats, watches: dict[str, tuple[NDArray[np.intp], Watch]], case: int) -> set[str]:
    """The levels that carry the evidence, by e-BH (Wang and Ramdas, doi:10.1111/rssb.12489).

    None where all cases together have as much as the best level, and none that holds all cases: what changed
    everywhere is no matter of a level.
    """
    sizes = {scope: np.count_nonzero(own <= case) for scope, (own, _) in watches.items() if scope}
    levels = [scope for scope, size in sizes.items() if size <= case]
    if not levels or log_evidence[0] >= log_evidence[1:].max():
        return set()
    log_evidence = log_evidence[[place for place, scope in enumerate(watches) if scope in levels]]
    counts = [sizes[scope] for scope in levels]
    # An e-detector's mean without a change is the number of its cases.
    values = log_evidence - np.log(np.maximum(counts, 1))
    order = np.argsort(-values, kind="stable")
    needed = np.log(len(levels) / (FALSELY_NAMED * np.arange(1, len(levels) + 1)))
    enough = np.flatnonzero(values[order] >= needed)
    return {levels[place] for place in order[: enough[-1] + 1]} if len(enough) else set()


def _log_odds(p: Floats) -> Floats:
    return np.asarray(special.logit(np.clip(p, OUTERMOST, 1 - OUTERMOST)))


def _offset(odds: Floats, happened: Floats, weights: Floats | float = 1.0) -> float:
    """The offset of log-odds that fits outcomes best, pulled a little towards 0, so that there always is one."""
    offset = 0.0
    for _ in range(50):
        chance = special.expit(odds + offset)
        step = (np.sum(weights * (happened - chance)) - offset) / (np.sum(weights * chance * (1 - chance)) + 1)
        offset += float(step)
        if abs(step) < 1e-8:
            break
    return offset


def _explain_break(row: Drift, before: Floats, probabilities: Floats, outcomes: Floats, stream: CaseStream) -> Drift:
    """A break that another prevalence would make is one of outputs: where scores moved as the outcomes did.

    With another share of ill people all log-odds are off by one offset, and the probabilities alone tell it (Saerens,
    Latinne and Decaestecker, Neural Computation 2002). If outcomes agree with it, images mean what they meant.
    before: (cases,) probabilities of the baseline
    """
    if not row.alarm_at or row.scope:
        return row
    changed = np.asarray(stream.at >= pd.Timestamp(row.since))
    stands = np.isfinite(probabilities)
    usable = changed & stands & np.isfinite(outcomes)
    happened = outcomes[usable]
    if not len(before) or len(set(happened)) < 2:
        return row
    # Of all cases: which of them are read may depend on what the model said. Where one share does not explain it, the
    # share may go with the season.
    after = probabilities[stands & changed]
    is_read = usable[stands & changed]
    prior = float(_log_odds(before.mean()))
    error = float(np.sqrt(np.var(before) / len(before))) / float(before.mean() * (1 - before.mean()))
    for parts in dict.fromkeys((1, max(1, len(after) // SEASON))):
        own = np.array_split(after, parts)
        lower, offsets, higher = (
            np.array([_offset_of_prevalence(one, part) for part in own])
            for one in (prior - error, prior, prior + error)
        )
        moved = _log_odds(after) + np.repeat(offsets, list(map(len, own)))
        ill = special.expit(prior + np.repeat(offsets, list(map(len, own))))
        left = _offset(moved[is_read], happened)
        p = special.expit(moved[is_read] + left)
        # The outcomes, the share after the change, and that before it are each known only so well.
        variance = 1 / np.sum(p * (1 - p)) + 1 / np.sum((special.expit(moved) - ill) ** 2)
        variance += np.square((higher - lower).mean() / 2)
        agrees = stats.chi2.sf(left**2 / variance, df=1) >= DISAGREE
        if agrees and np.abs(offsets).max() >= TOLERANCE:
            off = f"{offsets.min():+.2f}" + (f" to {offsets.max():+.2f}, by the season" if parts > 1 else "")
            words = f"as with another prevalence, all log-odds are off by {off}, and the outcomes agree"
            words += "; recalibrate on cases of this site"
            return replace(row, kind=OUTPUT, because=words)
    return row


def _offset_of_prevalence(prior: float, after: Floats) -> float:
    """The change of the log-odds of the prevalence from `prior` on that the probabilities of later cases show."""
    offset = 0.0
    odds = _log_odds(after)
    for _ in range(200):
        offset = float(_log_odds(special.expit(odds + offset).mean())) - prior
    return offset


def _with_missing(row: Drift, column: WatchedColumn, stream: CaseStream, in_scope: NDArray[np.bool_]) -> Drift:
    """State how often values are missing since the change and before; a cause that the cases do not show is dropped."""
    if row.because != MISSING:
        return row
    since = in_scope & np.asarray(stream.at >= pd.Timestamp(row.since))
    before, now = (float(np.isnan(values).mean()) for values in (column.reference, column.values[since]))
    if before == now:
        return replace(row, because="")
    words = MISSING if now > before else "fewer values are missing"
    return replace(row, because=f"{words}: {now:.0%} since then, {before:.0%} of the baseline")


def _with_new_levels(row: Drift, column: WatchedColumn, stream: CaseStream) -> Drift:
    """Name the levels that the reference does not have."""
    if not row.alarm_at:
        return row
    since = np.asarray(stream.at >= pd.Timestamp(row.since))
    new = Counter(level for level in column.new_levels[since].tolist() if level)
    words = [f"new level {level!r} ({errors.count_phrase(n, 'case')})" for level, n in new.most_common(MOST_NEW_LEVELS)]
    return replace(row, because="; ".join(filter(None, [row.because, *words])))


def _with_changes(row: Drift, stream: CaseStream, groups: Mapping[str, np.ndarray]) -> Drift:
    """Add what else became new in a level about the time of the change, such as its software.

    That it is the cause is not shown, and not said.
    """
    if not row.alarm_at or not row.scope:
        return row
    name, _, level = row.scope.partition("=")
    indices = np.flatnonzero(groups[name] == level)
    # The change may have begun some cases before its most probable time.
    start = max(0, int(stream.at[indices].searchsorted(pd.Timestamp(row.since))) - ABOUT)
    new = []
    for other, values in groups.items():
        if other == name:
            continue
        earlier, later = set(values[indices[:start]]), set(values[indices[start:]])
        if later - earlier and earlier:
            names = f"from {', '.join(sorted(earlier))} to {', '.join(sorted(later - earlier))}"
            new.append(f"about the same time {other} changed {names}")
    return replace(row, because="; ".join(filter(None, [row.because, *new])))


def drift_table(rows: Sequence[Drift]) -> pd.DataFrame:
    """The rows as `drift.csv` has them."""
    names = ["watch", "kind", "scope", "cases", "log_evidence", "limit", "alarm_at", "since", "because"]
    return pd.DataFrame([[getattr(row, name) for name in names] for row in rows], columns=names)
