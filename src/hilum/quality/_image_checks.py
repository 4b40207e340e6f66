"""Findings on images: of one case, of all cases compared, and cases that are unlike the others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from hilum import errors
from hilum.quality import references
from hilum.quality._intensities import Intensities
from hilum.quality.image_descriptors import ImageLook
from hilum.quality.image_quality import FEWEST_LETTERS
from hilum.tasks.shared import left_right
from hilum.tasks.shared.left_right import STATE_SIDES
from hilum.transforms import COLOUR, channel_stack
from hilum.transforms.channel_stack import GREY
from hilum.values import (
    Array,
    Case,
    CaseFacts,
    CaseReference,
    Cohort,
    Dataset,
    Fingerprint,
    Floats,
    Image,
    Problem,
    ReferenceKind,
    voxel_images,
)
from hilum.values.dataset_cases import FindingKind

# Why a reader's note is a finding.
READ_SO = "the file was read so"
# Axes of a volume.
VOLUME = 3


def no_measurement(case: Case, image: Image, valid: Array) -> Iterator[Problem]:
    """Channels without any measurement."""
    for name, is_valid in zip(image.channels, valid, strict=True):
        if not is_valid.any():
            yield Problem.error(
                f"channel {name!r} holds no measurement", (case.id,), "nothing to learn", "Leave it out"
            )


def grid_problems(case: Case, image: Image, masks: Sequence[CaseReference]) -> Iterator[Problem]:
    """Frames of an unknown meaning, and masks with other frames or on another grid than the image."""
    if image.frames is not None and image.times is None:
        yield Problem.error(
            f"has {image.frames} frames on a fourth axis, and nothing says what they are",
            (case.id,),
            "frames in time are treated differently from channels",
            'Name contrasts in dataset.json in the same folder, as in {"modality": {"0": "FLAIR", "1": "T1"}}, or give '
            "each as x.nii.gz#frame=0/4 in dataset.csv; write times of frames into the header",
        )
    for reference in masks:
        kind, mask = reference.name, reference.value
        if mask.frames != image.frames:
            yield Problem.error(
                f"{kind} has {mask.frames or 'no'} frames, the image {image.frames or 'none'}",
                (case.id,),
                "which frame a mask belongs to is not known",
                "Give a mask for every frame, or declare frames as channels (dataset.json, modality)",
            )
        if not mask.geometry.equals(image.geometry):
            turned = next((f" (it was {note})" for note in image.notes if "EXIF" in note), "")
            yield Problem.error(
                f"{kind} and image{turned} lie on different grids: {mask.geometry.difference(image.geometry)}",
                (case.id,),
                "a label would be learnt in the wrong place",
                mask.geometry.remedy_on(image.geometry)
                + ("; masks on the pixels as they are stored need --exif stored" if turned else ""),
            )


def image_problems(
    case: Case, image: Image, channels: Sequence[Intensities], masks: Sequence[CaseReference]
) -> Iterator[Problem]:
    """Constant channels, voxels that are not finite, masks that lie a little off, and empty maps of objects."""
    for number, (name, channel) in enumerate(zip(image.channels, channels, strict=True)):
        brought = voxel_images.BROUGHT in image.facts_of(number)
        yield from _channel(case.id, name, replace(channel, broken=0) if brought else channel)
    for reference in masks:
        if apart := image.geometry.deviation(reference.value.geometry):
            yield Problem.note(
                f"{reference.name} lies a little off the image's grid ({apart}), and is used as it is on that grid",
                (case.id,),
                "programs round positions when they save them",
                "Nothing, if one was contoured on the other",
            )
        # Whether an empty mask of structures is odd, the other cases say.
        if reference.name != "mask" and not reference.value.data.any():
            yield Problem.note(
                f"{reference.name} is empty", (case.id,), "it teaches only background", "Check that this is meant"
            )


def reader_notes(case: Case, image: Image) -> Iterator[Problem]:
    """Notes on what the reader had to decide about the image, or found odd in its file."""
    for note in image.notes:
        yield Problem.note(note.rstrip("."), (case.id,), READ_SO, "See that it is right")
    if image.facts.get(voxel_images.LABEL_MAP):
        yield Problem.note(
            "the file of the image says that it is a label map",
            (case.id,),
            "its values would be learnt as intensities",
            "Give the image, or nothing where labels are meant",
        )


def check_letters(case: Case, look: ImageLook) -> Iterator[Problem]:
    """Letters burned into the picture."""
    if any(measures["letters"] >= FEWEST_LETTERS for measures in look.quality):
        yield Problem.warning(
            f"letters seem to be burned into the picture (a line of {FEWEST_LETTERS} or more)",
            (case.id,),
            "they may name a person, or give the class away",
            "Look at them; cut them away or blacken them",
            kind="letters",
        )


def _channel(case: str, name: str, channel: Intensities) -> Iterator[Problem]:
    if channel.is_constant:
        yield Problem.warning(
            f"channel {name!r} is constant", (case,), "it shows nothing", "Look at it, or leave it out", "constant"
        )
    if channel.broken:
        yield Problem.warning(
            f"channel {name!r} has {channel.broken} voxels that are not finite",
            (case,),
            "they are left out of every statistic",
            "Look at how the file was made",
            kind="not-finite",
        )


def without_images(dataset: Dataset) -> Iterator[Problem]:
    """The problem that no case has an image: a table alone can be read, and nothing can be learnt from it here."""
    if not dataset.cases or any(case.images for case in dataset.cases):
        return
    columns = ", ".join([*dataset.columns.values(), *dataset.cases[0].covariates])
    what = f"no case has an image (columns: {columns})"
    yield Problem.error(what, (), "there is nothing to look at", "Name theirs, as in --column image=COLUMN")


def no_usable_case(problems: Sequence[Problem], fingerprint: Fingerprint) -> Iterator[Problem]:
    """The error that no case can be used, and what is wrong with the first."""
    of_the_set = any(problem.severity == "error" and not problem.cases for problem in problems)
    if fingerprint.cases or (problems and of_the_set):  # what is wrong with all of them is said already
        return
    first = next((problem for problem in problems if problem.severity == "error"), Problem.error("there is none"))
    remedy = first.remedy or "See what was found for each case"
    where = f"{', '.join(first.cases[:1])}: " if first.cases else ""
    what = f"no case can be used; the first: {where}{first.what}"
    yield Problem.error(what, (), "there is nothing to learn from", remedy)


def mixed_images(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Images with different channels or numbers of axes."""
    yield from _channels(dataset, fingerprint)
    axes = {len(case.shape) for case in fingerprint.cases}
    if len(axes) > 1:
        yield Problem.error(
            "some images have two axes and some three", (), "one network takes one kind", "Split the data set"
        )


def unknown_sides_among(cohort: Cohort, kinds: Collection[str]) -> Iterator[Problem]:
    """Volumes whose left and right are unknown, in a set whose references tell them apart: an error for them all.

    kinds: of reference that are to be predicted; empty: all that there are
    """
    cases = cohort.fingerprint.cases
    unknown = tuple(case.id for case in cases if len(case.shape) == VOLUME and not case.oriented)
    chosen = [kind for kind in references.kinds_by_names(cohort.dataset.kinds) if not kinds or kind.name in kinds]
    named = [name for kind in chosen for name in left_right.sided_names(_names_of(cohort, kind))]
    if unknown and named:
        what = left_right.unknown_sides(
            dict.fromkeys(named), f" of {len(unknown)} of {errors.count_phrase(len(cases), 'case')}"
        )
        yield Problem.error(what, unknown, "sides would be learnt the wrong way round", STATE_SIDES)


def _names_of(cohort: Cohort, kind: ReferenceKind) -> list[str]:
    """The names in references of a kind: declared labels, regions, and answers on images as a whole."""
    declared = [label.name for label in cohort.dataset.classes.get(kind.name, ())]
    regions = list(cohort.dataset.regions) if kind.name == "mask" else []
    answers = [pair for one in cohort.summaries(kind.name).values() for pair in kind.facts.answers(one).items()]
    names = [name or str(answer) for name, answer in answers]
    return list(dict.fromkeys([*declared, *regions, *names]))


def _channels(dataset: Dataset, fingerprint: Fingerprint) -> Iterator[Problem]:
    """Cases with other channels than the rest; pictures in grey beside those in colour can be brought to one kind.

    A case that lacks an image is none of them: the names of its images say which channels it has.
    """
    kinds = [channel_stack.without_alpha(case.channels) for case in fingerprint.cases]
    if set(kinds) <= {GREY, COLOUR} or len(set(kinds)) == 1:
        return
    images = {case.id: set(case.images) for case in dataset}
    named = all(
        {name, name.partition(":")[0]} & images[case.id] for case in fingerprint.cases for name in case.channels
    )
    places = [channel_stack.channel_places(kind, channel_stack.all_channels(kinds)) for kind in kinds]
    if named and all(order is not None and list(order) == sorted(order) for order in places):
        return
    usual = max(sorted(set(kinds)), key=kinds.count)
    others = "; ".join(", ".join(kind) for kind in sorted(set(kinds) - {usual}))
    yield Problem.error(
        f"some cases have other channels ({others}) than the rest ({', '.join(usual)})",
        tuple(case.id for case, kind in zip(fingerprint.cases, kinds, strict=True) if kind != usual),
        "one network takes one kind",
        "Give each case the same images, in the same order, or leave these cases out",
    )


# With fewer cases nobody knows what is usual.
FEWEST = 8
# So many cases are outliers in a set of any size.
FEW = 2
# A few cases are of another magnitude where they lie so many times above or below all others, who are so many times as
# many: intensities of MR differ tenfold between scanners.
MAGNITUDE, FEWEST_APART = 10.0, 5
# Stands for the unit of spacings: mm, of a series that of its axis.
UNIT = "{unit}"
Measure = Callable[[CaseFacts, ImageLook], Sequence[float]]


@dataclass(frozen=True)
class OutlierRule:
    """When a measure is unlike the others': its distance from the median, in robust standard deviations.

    measure: one number or several (an axis or a channel each) of a case
    side:    which way is odd
    limit:   1.4826 times the median absolute deviation counts as one; Iglewicz and Hoaglin 1993 take 3.5, but where
             thousands of measures are looked at that is too often
    spread:  the deviation is taken as at least this: where all are alike a hair is no outlier
    least:   the measure itself has to be this high, whatever the others are; -inf where it need not
    most:    share of the cases; where more are odd, the set has several kinds and no outliers
    kind:    of a warning, as `Problem` has it
    """

    severity: Literal["warning", "note"]
    measure: Measure
    side: Literal["low", "high", "both"]
    spread: float
    what: Callable[[Floats, float], str]
    why: str
    remedy: str
    limit: float = 6.0
    least: float = -np.inf
    most: float = 1.0
    kind: FindingKind = ""


def find_outliers(facts: Sequence[CaseFacts], looks: Mapping[str, ImageLook]) -> Iterator[Problem]:
    """Cases far from those of the same modality, channels and number of axes."""
    kinds: dict[tuple[str, int, int], list[CaseFacts]] = {}
    for case in facts:
        # A colour picture is measured in its luma, as a grey one is.
        kinds.setdefault((case.modality, len(looks[case.id].quality), len(case.shape)), []).append(case)
    for alike in kinds.values():
        problems = list(_of_another_magnitude(alike))
        yield from problems
        named = {case for problem in problems for case in problem.cases}
        for rule in RULES if len(alike) >= FEWEST else ():
            # Their range is said already.
            yield from _beyond(rule, [one for one in alike if rule.measure != _range or one.id not in named], looks)


def _of_another_magnitude(facts: Sequence[CaseFacts]) -> Iterator[Problem]:
    """Cases whose median or range is far from that of all others, however far these are from each other."""
    ranges, medians = (_of_each_channel(facts, measure) for measure in (_range_of, lambda one: one["median"]))
    # Of both signs, and linear where a median is small beside what an image spans.
    spans = (own[np.isfinite(own)] for own in ranges.T)
    signed = np.arcsinh(medians / [float(np.median(own)) if own.size else 1.0 for own in spans])
    for what, values, logs in (("range", ranges, np.log(ranges)), ("median", medians, signed)):
        for channel in range(values.shape[1]):
            if (far := _is_parted(logs[:, channel])).any():
                own, others = (_plain_span(values[chosen, channel]) for chosen in (far, ~far))
                apart = f"intensities are of another magnitude: their {what} is {own}, that of all others {others}"
                cases = tuple(one.id for one, is_far in zip(facts, far, strict=True) if is_far)
                yield Problem.warning(
                    apart, cases, "another unit, a scale that was lost, or a damaged file", LOOK, "magnitude"
                )
                return


def _is_parted(logs: Floats) -> NDArray[np.bool_]:
    """(cases,) whether a gap parts a few cases from all others, above or below these; NaN is in neither part."""
    known = np.sort(logs[np.isfinite(logs)])
    most = min(len(known) // FEWEST_APART, max(FEW, len(known) // 10))
    if not most:
        return np.zeros(len(logs), dtype=bool)
    middle = np.median(known)
    least = max(float(np.log(MAGNITUDE)), 2 * 1.4826 * float(np.median(np.abs(known - middle))))
    gaps = np.diff(known)
    low, high = gaps[:most], gaps[-most:]
    below = known[low.argmax()] if low.max() > least else -np.inf
    above = known[len(known) - most + high.argmax()] if high.max() > least else np.inf
    return np.asarray((logs <= below) | (logs >= above))


def _of_each_channel(facts: Sequence[CaseFacts], measure: Callable[[Mapping[str, float]], float]) -> Floats:
    """(cases, channels) of intensities, of the channels that all cases have."""
    channels = min(len(one.intensity) for one in facts)
    return np.array([[measure(levels) for levels in one.intensity[:channels]] for one in facts], dtype=np.float64)


def _range_of(levels: Mapping[str, float]) -> float:
    """From low to high; NaN where all is alike."""
    return levels["high"] - levels["low"] if levels["high"] > levels["low"] else float("nan")


def robust_z(values: Floats, spread: float) -> Floats:
    """(cases, ...) distance from the median over cases in robust standard deviations; NaN stays NaN."""
    middle = np.nanmedian(values, axis=0)
    deviation = 1.4826 * np.nanmedian(np.abs(values - middle), axis=0)
    return np.asarray((values - middle) / np.maximum(deviation, spread))


def _beyond(rule: OutlierRule, facts: Sequence[CaseFacts], looks: Mapping[str, ImageLook]) -> Iterator[Problem]:
    values = np.array([rule.measure(one, looks[one.id]) for one in facts], dtype=np.float64)
    values = values[:, np.isfinite(values).sum(axis=0) >= FEWEST]
    if not values.size:
        return
    z = robust_z(values, rule.spread)
    far = {"low": -z, "high": z, "both": np.abs(z)}[rule.side]
    odd: NDArray[np.bool_] = (far > rule.limit) & (values >= rule.least)
    chosen = tuple(facts[int(n)].id for n in np.flatnonzero(odd.any(axis=1)))
    if 0 < len(chosen) <= max(FEW, rule.most * len(facts)):
        usual = float(np.nanmedian(values[:, odd.any(axis=0).argmax()]))
        what = rule.what(values[odd], usual).replace(UNIT, facts[0].unit)
        yield Problem(rule.severity, what, chosen, rule.why, rule.remedy, kind=rule.kind)


def _of_channels(name: str) -> Measure:
    return lambda facts, look: [measures[name] for measures in look.quality]


def _noise(facts: CaseFacts, look: ImageLook) -> Sequence[float]:
    return [float(np.log(max(measures["noise"], 1e-3))) for measures in look.quality]


def _level(facts: CaseFacts, look: ImageLook) -> Sequence[float]:
    """The place of the mean between low and high: it has no unit, so scanners can be compared."""
    return [
        (one["mean"] - one["low"]) / (one["high"] - one["low"]) if one["high"] > one["low"] else np.nan
        for one in facts.intensity[: len(look.quality)]
    ]


def _range(facts: CaseFacts, look: ImageLook) -> Sequence[float]:
    return [float(np.log(_range_of(one))) for one in facts.intensity[: len(look.quality)]]


def _spacing(facts: CaseFacts, look: ImageLook) -> Sequence[float]:
    return np.log(facts.steps).tolist() if facts.physical else [np.nan] * len(facts.steps)


def _size(facts: CaseFacts, look: ImageLook) -> Sequence[float]:
    return cast("Sequence[float]", np.log(facts.shape).tolist())


def _times(values: Floats, usual: float) -> str:
    """Logarithms as multiples of the usual."""
    return " to ".join(f"{ratio:.2g}" for ratio in np.unique(np.exp([values.min() - usual, values.max() - usual])))


def _span(values: Floats) -> str:
    return " to ".join(f"{value:.3g}" for value in np.unique([values.min(), values.max()]))


def _plain_span(values: Floats) -> str:
    """The least and the highest, large numbers with their digits."""
    ends = np.unique([np.nanmin(values), np.nanmax(values)])
    return " to ".join(f"{end:,.0f}" if abs(end) >= 1000 else f"{end:.3g}" for end in ends)


LOOK = "Check them: leave them out, or confirm that such images belong to the data"
RULES = (
    OutlierRule(
        "warning",
        _of_channels("sharpness"),
        "low",
        0.15,
        lambda values, usual: (
            f"blurred: fine detail (variance of the Laplacian) is {_times(values, usual)} of the usual"
        ),
        "small structures cannot be seen in them",
        LOOK,
        kind="blurred",
    ),
    OutlierRule(
        "warning",
        _noise,
        "high",
        0.15,
        lambda values, usual: f"noisy: {_times(values, usual)} times the usual noise",
        "noise hides fine structures",
        LOOK,
        kind="noisy",
        least=float(np.log(0.02)),  # 2 % of the range: less is hardly seen
    ),
    OutlierRule(
        "warning",
        _of_channels("clipped"),
        "high",
        0.002,
        lambda values, usual: (
            f"clipped: {_span(100 * values)} % of the voxels have the highest value, usually {100 * usual:.2g} %"
        ),
        "what was brighter is lost, or white is painted in",
        LOOK,
        kind="clipped",
        least=0.02,
    ),
    OutlierRule(
        "warning",
        _of_channels("echo"),
        "high",
        0.01,
        lambda values, usual: (
            f"ghosts or motion: a moved copy of strength {_span(values)} lies over the image, usually {usual:.2g}"
        ),
        "edges appear where nothing is",
        LOOK,
        kind="ghosts",
        limit=7.0,
    ),
    OutlierRule(
        "note",
        _level,
        "both",
        0.05,
        lambda values, usual: (
            f"intensities lie unusually: the mean at {_span(values)} of the range, usually {usual:.2g}"
        ),
        "inverted, empty or another protocol",
        LOOK,
        most=0.1,
    ),
    OutlierRule(
        "note",
        _range,
        "both",
        0.25,
        lambda values, usual: f"intensities spread unusually: {_times(values, usual)} times the usual range",
        "another unit or scanner; nothing is wrong where each image is normalised by itself",
        LOOK,
        most=0.1,
    ),
    OutlierRule(
        "warning",
        _spacing,
        "both",
        0.05,
        lambda values, usual: f"spacing is unusual: {_span(np.exp(values))} {UNIT}, usually {np.exp(usual):.3g} {UNIT}",
        "another protocol, or a wrong header: structures would have wrong sizes",
        "Compare with the scanner's record",
        kind="spacing",
        most=0.25,
    ),
    OutlierRule(
        "note",
        _size,
        "both",
        0.1,
        lambda values, usual: (
            f"size is unusual: {_span(np.exp(values))} voxels along an axis, usually {np.exp(usual):.3g}"
        ),
        "another field of view, or a part is missing",
        LOOK,
        most=0.1,
    ),
)
