"""Text for numbers and values: every estimate with its interval, or the reason why there is none; in notebooks too."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence, Set
from functools import singledispatch
from html import escape
from typing import Any, Protocol

import numpy as np

from hilum.evaluation import Metric, Metrics
from hilum.lazy import pandas as pd
from hilum.values import Estimate, PlainValue, Row

# Metrics that are never below 0, and what selects where the validation cases lack a class or an event.
NEVER_NEGATIVE, INSTEAD = frozenset({"auroc", "harrell_c"}), "minus the log loss"
EN_DASH = "\N{EN DASH}"
ALL = "all"  # the label of the row over all labels
MOST_DECIMALS = 6
LEAST_DIGITS = 2  # of the largest of a value and its ends, however many decimals its column has
MOST_LISTED = 24  # numbers that a reader of a page goes through one by one


def metric_namer(metric: Metric) -> Callable[[float], str]:
    """The name of a figure of the metric that selects: of one below 0 that cannot be, what took the metric's place.

    Where the cases that select lack a class or an event, minus the loss selects.
    """
    return lambda figure: INSTEAD if metric.name in NEVER_NEGATIVE and figure < 0 else metric.words


def label_name(label: str) -> str:
    """A label as it stands beside a metric: empty over all labels, of several tasks the task alone."""
    return "" if label == ALL else label.removesuffix(f": {ALL}")


def row_name(row: Row, metrics: Metrics) -> str:
    """The metric, and the label unless the row is over all labels, which may be of a task."""
    name, label = metrics.metric_named(row.metric).words, label_name(row.label)
    return f"{name}, {label}" if label else name


def decimal_places(value: float, unit: str = "") -> int:
    """Three decimals for a ratio, three significant digits for all else; whole numbers at least, and six at most."""
    if not math.isfinite(value) or value == 0:
        return 3
    if not unit and 5e-3 <= abs(value) < 10:
        return 3
    return min(MOST_DECIMALS, max(0, 2 - math.floor(math.log10(abs(value)))))


def common_places(estimates: Sequence[Estimate]) -> int:
    """Decimals for figures that stand under one another: three of ratios, else those of the largest."""
    sizes = [abs(one.value) for one in estimates if math.isfinite(one.value)]
    unit = next((one.unit for one in estimates if one.unit), "")
    if not sizes or (not unit and max(sizes) < 10):
        return 3
    return decimal_places(max(sizes), unit)


def aligned_value(estimate: Estimate, rows: Sequence[Row]) -> str:
    """The value with its unit, with as many decimals as others of this unit in the column; a ratio has its own."""
    return number_text(estimate.value, estimate.unit, places=_places_of(estimate, _places_in(estimate, rows)))


def bare_value(estimate: Estimate, places: int) -> str:
    """The value without its unit, with the decimals of its column."""
    return number_text(estimate.value, places=_places_of(estimate, places))


def _places_of(estimate: Estimate, places: int | None) -> int:
    """Decimals of a value and its ends: those of its column, more where these would turn small ones into noughts."""
    places = common_places([estimate]) if places is None else places
    ends = (estimate.value, estimate.low, estimate.high)
    largest = max((abs(one) for one in ends if one is not None and math.isfinite(one)), default=0.0)
    own = LEAST_DIGITS - 1 - math.floor(math.log10(largest)) if largest else 0
    return max(places, min(MOST_DECIMALS, own))


def _places_in(estimate: Estimate, rows: Sequence[Row]) -> int:
    alike = [row.estimate for row in rows if row.estimate.unit == estimate.unit]
    return common_places(alike if estimate.unit else [estimate])


def p_text(p: float) -> str:
    """ "0.021", or "< 0.001" where more digits would claim too much; a dash where there is none."""
    if not math.isfinite(p):
        return EN_DASH
    return "< 0.001" if p < 0.001 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def share_text(share: float, places: int = 0) -> str:
    """ "42 %"; "> 99 %" and "< 1 %" where rounding would say all or none of what is only nearly so."""
    if not math.isfinite(share):
        return EN_DASH
    step, text = 10.0**-places, f"{100 * share:.{places}f}"
    if share < 1 and float(text) >= 100:
        return f"> {100 - step:.{places}f} %"
    if share > 0 and float(text) == 0:
        return f"< {step:.{places}f} %"
    return f"{text} %"


def star_text(rows: Sequence[Row]) -> str:
    """The meaning of a star at an interval, where there is one."""
    few = any("unreliable" in row.estimate.method for row in rows)
    return "* unreliable: fewer than ten patients or cases in a group or with a label" if few else ""


def shared_count(rows: Sequence[Row]) -> str:
    """Cases and patients behind the rows, where they are the same for all; else empty."""
    counts = {count_text(row.estimate) for row in rows}
    return counts.pop() if len(counts) == 1 else ""


def number_text(value: float, unit: str = "", places: int | None = None, *, signed: bool = False) -> str:
    """A number with `places` decimals (else those of `decimal_places`), its unit and a true minus sign; 0 has no sign.

    signed: whether a plus sign stands before what is more than 0
    """
    if not math.isfinite(value):
        return "undefined"
    places = decimal_places(value, unit) if places is None else places
    least = 10.0**-places
    if places == MOST_DECIMALS and 0 < abs(value) < least:  # a row of zeros would say that it is none
        text = f"<{least:.{places}f}" if value > 0 else f">\N{MINUS SIGN}{least:.{places}f}"
    else:
        size = f"{abs(value):.{places}f}"
        sign = "\N{MINUS SIGN}" if value < 0 else "+" * signed
        text = f"{sign if float(size) else ''}{size}"
    return f"{text} {unit}" if unit else text


def value_text(estimate: Estimate) -> str:
    """The value with its unit, without the interval."""
    return number_text(estimate.value, estimate.unit, places=_places_of(estimate, None))


def interval_text(estimate: Estimate, places: int | None = None) -> str:
    """ "95 % interval 0.874 to 0.890", or the reason why there is none."""
    if estimate.low is None or estimate.high is None:
        reason = estimate.method.removeprefix("none").lstrip(": ")
        return f"no interval: {reason or 'reason not recorded'}"
    places = _places_of(estimate, places)
    low, high = number_text(estimate.low, places=places), number_text(estimate.high, places=places)
    few = ", unreliable" if "unreliable" in estimate.method else ""
    return f"{100 * estimate.level:.0f} % interval {low} to {high}{few}"


def method_text(estimate: Estimate) -> str:
    """The method of the interval, or the reason why there is none."""
    method = estimate.method.removeprefix("none").lstrip(": ")
    return method or ("reason not recorded" if estimate.low is None else "")


def bare_interval(estimate: Estimate, rows: Sequence[Row]) -> str:
    """ "0.874 to 0.890", decimals as of the values in its column, whose heading gives the level; a star: unreliable."""
    text = interval_text(estimate, _places_in(estimate, rows)).replace(", unreliable", "*")
    return text.removeprefix(f"{100 * estimate.level:.0f} % interval ")


def why_no_interval(estimate: Estimate) -> str:
    """ "none: all draws are equal", without what else is to be known of the method."""
    reason = method_text(estimate).partition(";")[0]
    return f"none: {reason}"


def range_text(estimate: Estimate, places: int | None = None) -> str:
    """ "0.874–0.890", with a star where it is unreliable; empty where there is none."""
    if estimate.low is None or estimate.high is None:
        return ""
    places = _places_of(estimate, places)
    low, high = number_text(estimate.low, places=places), number_text(estimate.high, places=places)
    few = "*" if "unreliable" in estimate.method else ""
    return f"{low}{' to ' if estimate.low < 0 else EN_DASH}{high}{few}"


def level_words(rows: Sequence[Row]) -> str:
    """ "95 % interval", or "Interval" where the rows have not all one level."""
    levels_known = {row.estimate.level for row in rows if row.estimate.low is not None}
    return f"{100 * levels_known.pop():.0f} % interval" if len(levels_known) == 1 else "Interval"


def count_text(estimate: Estimate) -> str:
    """ "40 cases of 40 patients"; without patients where they are not known, empty where nothing was counted."""
    if not estimate.n:
        return ""
    cases = f"{estimate.n} {'case' if estimate.n == 1 else 'cases'}"
    if not estimate.patients:
        return cases
    return f"{cases} of {estimate.patients} {'patient' if estimate.patients == 1 else 'patients'}"


def row_words(row: Row, metrics: Metrics) -> str:
    """ "Dice 0.882 (95 % interval 0.874 to 0.890, 40 cases of 40 patients)"."""
    details = [part for part in (interval_text(row.estimate), count_text(row.estimate)) if part]
    return f"{row_name(row, metrics)} {value_text(row.estimate)} ({', '.join(details)})"


def as_sentence(text: str) -> str:
    """The text with a capital and a full stop; a file's name at its start stays as it is."""
    text = text.strip()
    first = text.split(" ", 1)[0].rstrip(",:;.")
    if first.isalpha() and first.islower():
        text = text[0].upper() + text[1:]
    return text if not text or text.endswith((".", "!", "?", ":")) else f"{text}."


@singledispatch
def setting_text(value: Any) -> str:
    """A value that somebody chose or stated: every digit of it, and none more."""
    return cell_text(value)


@setting_text.register
def _no_setting(_: None) -> str:
    return "none"


@setting_text.register(Mapping)
def _settings(value: Mapping[str, PlainValue]) -> str:
    if not value:
        return "none"
    if len(value) > MOST_LISTED and all(isinstance(part, Mapping) for part in value.values()):
        return f"{len(value)} entries, from {next(iter(value))} to {[*value][-1]}"
    return ", ".join(f"{name}: {setting_text(part)}" for name, part in value.items())


@setting_text.register(list)
@setting_text.register(tuple)
def _setting_list(value: Sequence[Any]) -> str:
    if not value:
        return "none"
    if len(value) > MOST_LISTED and all(isinstance(part, int | float) for part in value):
        return f"{len(value)} numbers, from {setting_text(value[0])} to {setting_text(value[-1])}"
    if len(value) > MOST_LISTED and all(isinstance(part, list | tuple) for part in value):
        return f"{len(value)} lists, from ({setting_text(value[0])}) to ({setting_text(value[-1])})"
    return ", ".join(setting_text(part) for part in value)


@setting_text.register(set)
@setting_text.register(frozenset)
def _setting_set(value: Set[Any]) -> str:
    return _setting_list(sorted(value, key=str))


@setting_text.register(float)
@setting_text.register(np.floating)
def _setting_number(value: float) -> str:
    return f"{float(value):.12g}".replace("-", "\N{MINUS SIGN}")


@singledispatch
def cell_text(value: Any) -> str:
    """A cell of a table: a number with as many digits as mean something, a dash for None."""
    return str(value)


@cell_text.register
def _nothing(_: None) -> str:
    return EN_DASH


@cell_text.register(bool)
@cell_text.register(np.bool_)
def _truth(value: bool) -> str:
    return "yes" if value else "no"


@cell_text.register(int)
@cell_text.register(np.integer)
def _whole(value: int) -> str:
    return str(int(value))


@cell_text.register(float)
@cell_text.register(np.floating)
def _decimal(value: float) -> str:
    return number_text(float(value)) if math.isfinite(value) else EN_DASH


@cell_text.register
def _estimate(value: Estimate) -> str:
    return f"{value_text(value)} ({interval_text(value)})"


@cell_text.register(list)
@cell_text.register(tuple)
def _cells(value: Sequence[Any]) -> str:
    return ", ".join(cell_text(part) for part in value)


# Rows of a table that a notebook shows; pandas leaves out the middle of more.
MOST_ROWS = 60


class HasTable(Protocol):
    """A result with rows."""

    @property
    def table(self) -> pd.DataFrame:
        """The rows."""


class InNotebook:
    """A result that a notebook shows as its words over its `table`."""

    def _repr_html_(self: HasTable) -> str:
        return f"<pre>{escape(str(self))}</pre>{self.table.to_html(index=False, max_rows=MOST_ROWS)}"
