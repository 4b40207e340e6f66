"""The page and the record of `check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.errors import counted
from isocenter.quality import Examination, Look, Twin, kinds_of, reference_kinds
from isocenter.report import Block, Facts, Figure, Gallery, Page, Paragraph, Problems, Section, Table, figures
from isocenter.values import BoundingBoxes, Case, CaseFacts, Cohort, Fingerprint, Image, Shortcut, counted_in

SEVERITIES = ("error", "warning", "note")  # the worst first
SHOWN_CASES, EACH, SHOWN_PAIRS = 12, 4, 12
BINS = 32


def check_page(examination: Examination, facts: Mapping[str, Any], more: Sequence[Section] = ()) -> Page:
    """All that was found as one page, the worst first; more: sections on groups of people"""
    problems = sorted(examination.problems, key=lambda problem: SEVERITIES.index(problem.severity))
    unknown = "" if examination.dataset.patients_known else (
        " Patients are unknown: a split is by case, and leakage cannot be excluded."
    )  # fmt: skip
    return Page(
        title=f"Check of {facts['data']}",
        lead=f"What the data hold, and what speaks against training on them.{unknown}",
        verdict=_verdict(examination),
        sections=[
            Section("What was found", [Problems(problems, none="Nothing was found that speaks against training.")]),
            Section("What the data hold", [Facts(facts), *_numbers(examination)]),
            Section("How it looks", list(_pictures(examination))),
            *_twins(examination),
            *_shortcuts(examination),
            *more,
        ],
    )


def _verdict(examination: Examination) -> str:
    """Whether these data are fit to learn from, in a sentence."""
    counts = {name: sum(one.severity == name for one in examination.problems) for name in SEVERITIES[:2]}
    spoken = " and ".join(counted(count, name) for name, count in counts.items() if count)
    if examination.fatal:
        return f"Not fit for training as they are: {spoken or 'no case can be used'}."
    usable = counted(len(examination.dataset), "case")
    if not spoken:
        return f"{usable} to learn from; nothing speaks against it."
    return f"{usable} to learn from, with {spoken} to look at first."


def case_record(facts: CaseFacts, look: Look) -> dict[str, Any]:
    """One case's part of the fingerprint, as `check.json` keeps it."""
    recorded = {kind.name: kind.facts.recorded(facts.references[kind.name]) for kind in kinds_of(facts.references)}
    return {
        "shape": list(facts.shape),
        "spacing": list(facts.steps) if facts.physical else None,
        "modality": facts.modality,
        "channels": list(facts.channels),
        "content": facts.content,
        "intensity": [_short(one) for one in facts.intensity],
        "foreground": [_short(one) for one in facts.foreground],
        "references": {kind: record for kind, record in recorded.items() if record is not None},
        "thickness": {str(value): round(thickness, 3) for value, thickness in facts.thickness.items()},
        "elongation": {str(value): round(times, 3) for value, times in facts.elongation.items()},
        "components": {str(value): count for value, count in facts.components.items()},
        "quality": [_short(one) for one in look.quality],
    }


def _short(measures: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(f"{value:.6g}") if np.isfinite(value) else None for name, value in measures.items()}


def _pictures(examination: Examination) -> Iterator[Figure]:
    """Contact sheets: the cases of the worst findings, and some of the others."""
    cases = {case.id: case for case in examination.dataset}
    ranked = sorted(examination.problems, key=lambda problem: SEVERITIES.index(problem.severity))
    ranked_cases = [[name for name in one.cases if name in cases] for one in ranked]
    # Some of each finding: one that hundreds of cases share must not hide the others.
    worst = list(dict.fromkeys(name for names in ranked_cases for name in names[:EACH]))[:SHOWN_CASES]
    if worst:
        yield _sheet(examination, [cases[name] for name in worst], "Cases with findings, the worst first", worst)
    odd = {name for names in ranked_cases for name in names}
    rest = [case for name, case in cases.items() if name not in odd]
    if even := rest[:: max(1, -(-len(rest) // SHOWN_CASES))]:
        yield _sheet(examination, even, "Cases without a finding, evenly chosen" if worst else "Cases, evenly chosen")


def _sheet(examination: Examination, cases: Sequence[Case], title: str, marked: Sequence[str] = ()) -> Figure:
    drawn = {case.id: first for case in cases if (first := next(_drawn(case), None)) is not None}
    kinds = (kind for kind, _ in drawn.values())
    return figures.contact_sheet(
        {case.id: _first(case) for case in cases},
        title,
        caption="Outlines: the reference." if drawn else "",
        references={name: reference for name, (_, reference) in drawn.items()},
        labels=examination.dataset.classes.get(next(kinds, ""), ()),
        marked=marked,
        classes={case.id: named for case in cases if (named := _class_of(case))},
    )


def _class_of(case: Case) -> str:
    """The class or the findings of a case, in a few words; empty where it has neither."""
    known = case.references
    if "class" in known:
        return str(known["class"])
    return ", ".join(name for name, present in known.get("findings", {}).items() if present)


def _drawn(case: Case) -> Iterator[tuple[str, Image | BoundingBoxes]]:
    """The references that have a place in the image, by kind."""
    for kind in kinds_of(case.references):
        drawn = kind.words.drawn(case.references[kind.name])
        if drawn is not None:
            yield kind.name, drawn


def _first(case: Case) -> Image:
    return next(iter(case.images.values()))


def _numbers(examination: Examination) -> Iterator[Block]:
    """Each kind of reference, sizes, spacings and intensities, as far as they differ."""
    cases = examination.fingerprint.cases
    if not cases:
        return
    cohort = Cohort(examination.dataset, examination.fingerprint)
    of_references = (chart for kind in reference_kinds() for chart in kind.words.charts(cohort))
    yield Gallery([*of_references, *_grids(examination.fingerprint), *_intensities(examination)])


def _grids(fingerprint: Fingerprint) -> Iterator[Figure]:
    cases = fingerprint.cases
    if len({len(case.shape) for case in cases}) > 1:
        return
    shapes = np.array([case.shape for case in cases])
    if len(np.unique(shapes, axis=0)) > 1:
        yield _spread(shapes, "Size", "samples" if fingerprint.axes == 1 else counted_in(fingerprint.axes))
    steps = np.array([case.steps for case in cases if case.physical])
    if len(steps) and len(np.unique(steps, axis=0)) > 1:
        yield _spread(steps, "Spacing", fingerprint.unit)


def _spread(values: np.ndarray, title: str, unit: str) -> Figure:
    """(cases, axes): the first axis against the last, or of series the one that they have."""
    if values.shape[1] == 1:
        return figures.histogram({"cases": values[:, 0]}, title, axis=f"{title.lower()} ({unit})")
    names = ("rows", "columns") if values.shape[1] == 2 else ("first axis", "last axis")
    axes = (f"{names[0]} ({unit})", f"{names[1]} ({unit})")
    return figures.scatter(values[:, 0], values[:, -1], title, axes=axes)


def _intensities(examination: Examination) -> Iterator[Figure]:
    """Each case's histogram over its own range, from the small image that the pass has kept."""
    cases = examination.fingerprint.cases
    edges = np.linspace(0, 1, BINS + 1)
    small = [examination.looks[case.id].small.ravel() for case in cases]
    shares = [np.histogram(values, edges)[0] / len(values) for values in small]
    odd = {
        name for one in examination.problems if one.what.startswith(("intensities", "clipped")) for name in one.cases
    }
    marked = [place for place, case in enumerate(cases) if case.id in odd]
    caption = "Thin: each image. Thick: the middle. 0 and 1 are the image's 0.5th and 99.5th percentile."
    yield figures.profiles(
        shares, edges, "Intensities within each image", axis="share of the range, first channel", caption=caption,
        marked=marked,
    )  # fmt: skip
    medians = np.array([case.intensity[0]["median"] for case in cases])
    if np.ptp(medians) > 0 and medians.min() > 0 and medians.max() > 100 * medians.min():
        axis = "logarithm (base 10) of the intensity, first channel"
        yield figures.histogram({"median": np.log10(medians)}, "Median intensity of the cases", axis=axis)
    elif np.ptp(medians) > 0:
        yield figures.histogram({"median": medians}, "Median intensity of the cases", axis="intensity, first channel")


def _twins(examination: Examination) -> Iterator[Section]:
    cases = {case.id: case for case in examination.dataset}
    if not examination.pairs:
        return
    parts = examination.dataset.splits

    def harm(pair: Twin) -> tuple[bool, bool]:
        """Across the parts of a split comes first; one patient's neighbouring frames are no leak and come last."""
        same_part = parts.get(pair.first) == parts.get(pair.second)
        return same_part, cases[pair.first].patient == cases[pair.second].patient

    pairs = sorted(examination.pairs, key=harm)

    def words(first: str, second: str, exact: bool, likeness: float) -> str:
        where = f", {parts[first]} and {parts[second]}" if first in parts and second in parts else ""
        return f"{'equal images' if exact else f'likeness {likeness:.3f}'}{where}"

    sheet = [
        (one.first, _first(cases[one.first]), one.second, _first(cases[one.second]),
         words(one.first, one.second, one.exact, one.likeness))
        for one in pairs[:SHOWN_PAIRS]
    ]  # fmt: skip
    shown = (
        f"{len(sheet)} of {len(pairs)} pairs" if len(pairs) > len(sheet) else f"Shown: {counted(len(pairs), 'pair')}"
    )
    caption = f"{shown}. Likeness: correlation of what is not common to the whole set; above 0.97 it is one image."
    yield Section(
        "The same image twice", [figures.pair_sheet(sheet, "Cases with (nearly) the same image", caption=caption)]
    )


def _shortcuts(examination: Examination) -> Iterator[Section]:
    if not examination.shortcuts:
        return
    rows = [
        (one.what, one.source, one.auc, one.p_text.removeprefix("= "), _judged(one)) for one in examination.shortcuts
    ]
    explanation = (
        "How well each of these alone predicts the answer, cross-validated by patient: the AUC, or of values and times "
        "the share of pairs in the right order; 0.5 is chance. p: that chance does as well, adjusted after Holm."
    )
    table = Table(["Question", "Predicted from", "AUC or c", "p", "Answer"], rows)
    yield Section("Shortcuts to the answer", [Paragraph(explanation), table])


def _judged(shortcut: Shortcut) -> str:
    if not shortcut.standing:
        return "a little" if shortcut.p < 0.05 else "no"
    return "yes; preprocessing may remove it" if shortcut.removable else "yes"
