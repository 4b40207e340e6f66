"""One pass over all cases: facts for planning, and findings."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from hilum import errors
from hilum.errors import HilumError, MemoryShortageError
from hilum.files.slides.tiled_levels import MODALITY
from hilum.files.storage import kept
from hilum.layouts.cases import unnamed_masks
from hilum.quality import (
    _image_checks,
    _intensities,
    accepted_findings,
    covariate_checks,
    image_descriptors,
    image_likeness,
    known_cases,
    label_contradictions,
    label_proxies,
    leakage,
    mask_fit,
    mask_placement,
    modality_checks,
    patient_checks,
    references,
    shortcut_tests,
)
from hilum.quality._image_checks import READ_SO
from hilum.quality._intensities import Intensities
from hilum.quality.image_descriptors import ImageLook
from hilum.quality.known_cases import Measured
from hilum.quality.leakage import Twin
from hilum.quality.references import instances
from hilum.quality.references.masks import MOST_LABELS
from hilum.quality.shortcut_tests import MOST_PICTURES, SeenPart
from hilum.runtime import hardware
from hilum.runtime.parallel import map_cases
from hilum.runtime.predicted_memory import USABLE
from hilum.runtime.preprocessing import coarse_mask
from hilum.runtime.preprocessing.coarse_mask import CoarseMask
from hilum.transforms import channel_stack
from hilum.values import Array, Case, CaseFacts, CaseReference, Cohort, Dataset, Fingerprint, Floats, Image, Problem
from hilum.values.dataset_fingerprint import Shortcut
from hilum.values.reference_kind import ReferenceMeasures

# Called with the number of cases done and of all.
Progress = Callable[[int, int], None]

# Why a case whose files are at fault is left out.
UNUSABLE = "cannot be used"
EXCHANGED = Problem.error(
    "image and mask are exchanged",
    why=UNUSABLE,
    remedy="Exchange the names of their folders or files, or the columns of the table",
)
# So many problems that differ in their numbers are said as one, and so many of them are shown.
MANY, SHOWN = 4, 3
NUMBERS = re.compile(r"\d+(\.\d+)?")
IN_BRACKETS = re.compile(r"\([^()]*\)")
# A number beside names in quotes: what is wrong with label 'L1' is not wrong with label 'L2'.
UNQUOTED = re.compile(r"('[^']*')|\d+(?:\.\d+)?")
# Pixels along the longer side of the level at which a slide is looked at as a picture, at the least.
LOOKED_AT = 1024
# Squares of tissue of the finest level that are looked at, pixels along a side of one.
SQUARES, SIDE = 64, 128
# Pixels of one slide may be so many times as long as of the middle one.
UNLIKE_PIXELS = 1.5
# Second differences of a square over those of its half: .25 of what is smooth, 1 of noise. Of 54 tiles of tissue (Data
# Science Bowl 2018) it is .33 to .78; blurred by a Gaussian of 1 pixel .28 to .38, of 2 pixels .27 to .30.
LEAST_DETAIL = 0.31
# Share of a square that has to be tissue, and greys of which less is rounding.
DYED = 0.75
LEAST_ROUGHNESS = 0.1


@dataclass(frozen=True, eq=False)
class Examination:
    """A data set as far as it can be used, and the findings on it.

    dataset:   without the cases that cannot be used
    problems:  all findings
    fatal:     those because of which nothing should be trained on the rest either
    twins:     groups of cases that hold (nearly) the same image
    shortcuts: what was tried to predict the label without the disease, the strongest first
    unmeasured: what could not be tried, and why, in sentences
    pairs:     the twins, two by two
    looks:     {case id: how it looks}
    kinds:     of reference that are to be predicted; None: all that there are
    keys:      {case id: what it is made of}; empty of cases that cannot be known again
    """

    dataset: Dataset
    fingerprint: Fingerprint
    problems: tuple[Problem, ...]
    fatal: tuple[Problem, ...] = ()
    twins: tuple[frozenset[str], ...] = ()
    shortcuts: tuple[Shortcut, ...] = ()
    pairs: tuple[Twin, ...] = ()
    looks: Mapping[str, ImageLook] = field(default_factory=dict)
    unmeasured: tuple[str, ...] = ()
    kinds: frozenset[str] | None = None
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def warned_cases(self) -> frozenset[str]:
        """Ids of usable cases that a warning names which a person could accept."""
        warnings = [one for one in self.problems if one.severity == "warning" and one.kind]
        return frozenset(case for one in warnings for case in one.cases) & {case.id for case in self.dataset}

    def without(self, problems: Sequence[Problem]) -> Examination:
        """Without the cases that these problems are about, which are among its findings from then on."""
        left_out = {case for problem in problems for case in problem.cases}
        ids = {case.id for case in self.dataset} - left_out
        dataset = replace(self.dataset.only(ids), problems=(*self.dataset.problems, *problems))
        return replace(
            self,
            dataset=dataset,
            fingerprint=self.fingerprint.only({case.id for case in self.fingerprint.cases} - left_out),
            problems=dataset.problems,
            twins=tuple(group - left_out for group in self.twins if len(group - left_out) > 1),
            pairs=tuple(twin for twin in self.pairs if not left_out & {twin.first, twin.second}),
        )

    def of_task(self, dataset: Dataset, kinds: frozenset[str]) -> Examination:
        """The examination for a training on these cases, which predicts references of these kinds and nothing else."""
        return replace(
            self,
            dataset=dataset,
            problems=dataset.problems,
            shortcuts=tuple(one for one in self.shortcuts if one.kind in kinds),
            unmeasured=shortcut_tests.unanswerable_questions(dataset, self.fingerprint, kinds),
            kinds=kinds,
        )


def examine(
    dataset: Dataset, *, threads: int = 1, progress: Progress | None = None, kinds: Collection[str] = ()
) -> Examination:
    """Read every case once, several in parallel; a bad case is named and the others go on.

    What was found in files that have not changed since is taken from the cache, and what is new kept there.
    kinds:  of reference that are to be predicted, by which it is decided whether sides matter; empty: all
    Cases are read where the command has them read (`map_cases.spread_over`); on this machine many of them in processes
    that may crash.
    """
    dataset = replace(dataset, problems=(*dataset.problems, *_image_checks.without_images(dataset)))
    facts: list[CaseFacts] = []
    looks: dict[str, ImageLook] = {}
    problems = list(dataset.problems)
    # Patches are large, and more of them tell no more. Sampled: in a list of pairs every second case is of one class.
    with_patches = set(np.random.default_rng(0).permutation(len(dataset))[:MOST_PICTURES].tolist())
    outcomes: dict[int, Measured | HilumError] = {}
    keys: dict[str, str] = {}
    for number, key, outcome in _looked_at(dataset.cases, threads):
        keys[dataset.cases[number].id] = key
        outcomes[number] = outcome if number in with_patches else _without_patches(outcome)
        if progress is not None:
            progress(len(outcomes), len(dataset))
    for number, case in enumerate(dataset.cases):
        outcome = outcomes.pop(number)
        look_of_case, problems_of_case = (
            (None, [_unusable(case, outcome)]) if isinstance(outcome, HilumError) else outcome
        )
        problems.extend(problems_of_case)
        if look_of_case is not None:
            facts.append(look_of_case[0])
            looks[look_of_case[0].id] = look_of_case[1]
    return replace(_compare(dataset, Fingerprint(tuple(facts)), looks, problems, kinds), keys=keys)


def _looked_at(cases: Sequence[Case], threads: int) -> Iterator[tuple[int, str, Measured | HilumError]]:
    """(Number, key, outcome) of each case: first of those that are known, then of the others as they are done."""
    unknown: list[int] = []
    for number, case in enumerate(cases):
        if (known := known_cases.known_look(case)) is None:
            unknown.append(number)
        else:
            yield number, *known
    others = [cases[number] for number in unknown]
    threads = known_cases.fitting_threads(threads, others, USABLE * hardware.available_host_memory())
    spread = map_cases.current_spread(map_cases.local_spread(threads, others))
    each = spread(partial(known_cases.look_at, _measure, kept.current_caching()), others)
    for place, looked in each:
        if isinstance(looked, HilumError):
            yield unknown[place], "", looked
        else:
            known_cases.keep_look(others[place], looked)
            yield unknown[place], looked.key, looked.outcome


def retest_shortcuts(
    examination: Examination,
    *,
    aspect: str = "stretch",
    border: float = 0.0,
    shape: Sequence[int] | None = None,
    ids: set[str] | None = None,
    seed: int = 0,
) -> tuple[Shortcut, ...]:
    """The shortcuts as they stand after the plan's preprocessing, from what each case's small image keeps.

    aspect, border: as in the plan's section "preprocessing"; shape: of the network's grid, where it is fixed
    ids:            of these (training) cases alone; else of all but the set's own test part
    """
    framing = SeenPart(aspect, border, None if shape is None else tuple(shape))
    facts, looks, kinds = examination.fingerprint, examination.looks, examination.kinds
    after = shortcut_tests.find_shortcuts(
        examination.dataset, facts, looks, ids=ids, kinds=kinds, framing=framing, seed=seed
    )
    return shortcut_tests.standing_shortcuts(examination.shortcuts, after) if ids is None else after


def _without_patches(outcome: Measured | HilumError) -> Measured | HilumError:
    if isinstance(outcome, HilumError):
        return outcome
    look_of_case, problems = outcome
    return outcome if look_of_case is None else ((look_of_case[0], replace(look_of_case[1], patches=None)), problems)


def _measure(case: Case) -> Measured:
    measured, problems = _measured_as_given(case)
    reference_values = () if measured is None else measured[0].references.values()
    # Only such cases can be meant, and their files are read once more.
    is_odd = measured is None or any(isinstance(one, Mapping) and len(one) > MOST_LABELS for one in reference_values)
    if is_odd and unnamed_masks.is_exchanged(case):
        return None, [replace(EXCHANGED, cases=(case.id,))]
    return measured, problems


def _measured_as_given(case: Case) -> Measured:
    try:
        given_image = channel_stack.stack_images(case.images, case.id)
        image = looked_at(given_image)
        _refuse_larger_than_memory(image, case)
        image = image.with_pixels(image.data)  # read once: every measure looks at the voxels
        valid = _valid(image)
        read_references = {name: _read_reference(case, name, image, valid) for name in case.references}
        kinds = references.kinds_by_names(read_references)
        intensities = {kind.name for kind in kinds if kind.is_image}
        masks = [
            one for one in read_references.values() if isinstance(one.value, Image) and one.name not in intensities
        ]
        checked = [(kind.checks, read_references[kind.name]) for kind in references.kinds_by_names(read_references)]
        problems = [
            *_image_checks.no_measurement(case, image, valid),
            *(problem for checks, reference in checked for problem in checks.unusable(reference)),
            *_image_checks.grid_problems(case, image, masks),
        ]
        if problems:
            return None, problems
        measures = {
            kind.name: kind.facts.measure(read_references[kind.name])
            for kind in references.kinds_by_names(read_references)
        }
        answered = any(
            kind.facts.answers(measures[kind.name].summary) for kind in references.kinds_by_names(read_references)
        )
        channels = [_intensities.measure_intensities(*channel) for channel in zip(image.data, valid, strict=True)]
        look_of_case = image_descriptors.describe_image(image, valid, channels, marks=answered)
        fitted = mask_fit.mask_name(case)
        if fitted in read_references:
            is_objects = fitted == instances.KIND
            placement = mask_placement.measure_placement(image, read_references[fitted].value, is_objects=is_objects)
            look_of_case = replace(look_of_case, placement=placement)
        problems = [
            *_image_checks.reader_notes(case, image),
            *_image_checks.image_problems(case, image, channels, masks),
            *(problem for checks, own in checked for problem in checks.odd(own, measures[own.name])),
            *_image_checks.check_letters(case, look_of_case),
            *slide_problems(case, given_image),
        ]
        facts = _facts_of(case, image, channels, measures)
        if given_image.is_slide:  # its grid is that of its finest level
            grid = given_image.geometry
            mask = coarse_mask.tissue_of(given_image)
            facts = replace(facts, tissue=1.0 if mask is None else mask.shown)
            facts = replace(facts, shape=grid.shape, steps=grid.steps, content_shape=grid.shape)
        return (_with_air(facts, image, masks), look_of_case), problems
    except MemoryShortageError:  # it is tried again by itself
        raise
    except HilumError as error:
        return None, [_unusable(case, error)]


def _refuse_larger_than_memory(image: Image, case: Case) -> None:
    """MemoryShortageError, before voxels are read, where they and the look at them take more than there is."""
    needed, free = known_cases.image_bytes(image, len(case.references)), USABLE * hardware.available_host_memory()
    if needed > free:
        problem = f"a look at it takes {needed / 2**30:.2f} GiB of memory, and {free / 2**30:.2f} GiB may be used"
        raise MemoryShortageError(problem, case.id, "Close other programs, or take a machine with more memory")


def _valid(image: Image) -> Array:
    """(channels, *spatial) where voxels are measurements: a single truth for all where none can be anything else."""
    if image.padding is None and image.dtype.kind in "bui":
        return np.broadcast_to(np.True_, image.shape)
    return image.valid


def _facts_of(
    case: Case, image: Image, channels: Sequence[Intensities], measures: Mapping[str, ReferenceMeasures]
) -> CaseFacts:
    """Return the facts of an image whose voxels are read.

    measures: {name of a reference: what was measured of it}; a later one overrules an earlier one
    """
    canonical = image.geometry.canonical
    fields: dict[str, Any] = {"foreground": ()}
    for measure in measures.values():
        fields |= {} if measure.foreground is None else {"foreground": measure.foreground}
        maps = {name: getattr(measure, name) for name in ("thickness", "elongation", "components", "kinds", "places")}
        fields |= {name: values for name, values in maps.items() if values}
    return CaseFacts(
        id=case.id,
        shape=canonical.shape,
        steps=canonical.steps,
        physical=image.geometry.physical,
        oriented=image.geometry.oriented,
        channels=image.channels,
        modality=image.modality,
        intensity=tuple(channel.statistics for channel in channels),
        content_shape=_content_shape(image, channels),
        references={name: measures[name].summary for name in case.references},
        voxel_volume=canonical.voxel_volume,
        unit=image.geometry.unit,
        frames=image.frames,
        lasts=None if image.times is None else max(image.times) - min(image.times),
        **fields,
    )


def _with_air(facts: CaseFacts, image: Image, masks: Sequence[CaseReference]) -> CaseFacts:
    """The facts with those about air beside a body."""
    if (body := coarse_mask.body_of(image)) is None:
        return facts
    label_maps = [mask.value for mask in masks if mask.name.partition(":")[0] == "mask"]
    labels = map(image_descriptors.structure_labels, label_maps)
    return replace(facts, air=body.air, marks_air=any(body.leaves_out(one) for one in labels))


def _content_shape(image: Image, channels: Sequence[Intensities]) -> tuple[int, ...]:
    """Voxels, in canonical order, of the box around all that is above the lowest value of its channel."""
    whole = tuple((0, size) for size in image.shape[1:])
    boxes = [channel.box for channel in channels if channel.box] or [whole]
    axes, _ = image.geometry.to_canonical
    sizes = [max(end for _, end in ends) - min(first for first, _ in ends) for ends in zip(*boxes, strict=True)]
    sizes = sizes[-len(axes) :]  # whatever frames come first
    return tuple(sizes[axis] for axis in axes)


def _unusable(case: Case, error: HilumError) -> Problem:
    # Without the case's name in it, what many cases have is said once.
    what = error.problem if error.where == case.id else f"{error.where}: {error.problem}"
    return Problem.error(what, (case.id,), UNUSABLE, error.remedy)


def _read_reference(case: Case, name: str, image: Image, valid: Array) -> CaseReference:
    """A reference with its voxels, if it has any, read once."""
    value: Any = case.references[name]
    value = value.with_pixels(value.data) if isinstance(value, Image) else value
    return CaseReference(case.id, name, value, image, valid)


def _compare(
    dataset: Dataset,
    fingerprint: Fingerprint,
    looks: Mapping[str, ImageLook],
    problems: Sequence[Problem],
    kinds: Collection[str],
) -> Examination:
    """Findings on all cases compared."""
    exchanged = [case for problem in problems if problem.what == EXCHANGED.what for case in problem.cases]
    if 2 * len(exchanged) > len(dataset):  # whatever else would be said of them is wrong
        share = "" if len(exchanged) == len(dataset) else f" of {len(exchanged)} of {len(dataset)} cases"
        what = f"images and masks{share} are exchanged: what is given as images are label maps, and the reverse"
        nothing = (replace(EXCHANGED, what=what, why="there is nothing to learn"),)
        return Examination(replace(dataset.only(set()), problems=nothing), Fingerprint(()), nothing, nothing)
    usable = dataset.only({case.id for case in fingerprint.cases})
    pairs, cohort = leakage.find_twins(looks), Cohort(usable, fingerprint)
    tried = shortcut_tests.find_shortcuts(usable, fingerprint, looks)
    few = shortcut_tests.unanswerable_questions(usable, fingerprint)
    of_all = [
        *_image_checks.no_usable_case(problems, fingerprint),
        *chain.from_iterable(kind.checks.cohort(cohort) for kind in references.reference_kinds()),
        *_image_checks.mixed_images(usable, fingerprint),
        *image_likeness.unlike_images(fingerprint.cases, looks),
        *mask_fit.unfit_masks(cohort, looks),
        *unlike_pixels(fingerprint),
        *modality_checks.ct_scale_problems(usable, fingerprint),
        *_image_checks.unknown_sides_among(cohort, kinds),
        *leakage.leakage_problems(dataset, fingerprint, pairs),
        *patient_checks.patient_problems(dataset),
        *covariate_checks.covariate_problems(dataset),
        *label_proxies.proxy_problems(usable, fingerprint),
        *label_contradictions.contradiction_problems(usable, fingerprint, looks),
        *shortcut_tests.shortcut_problems(tried),
    ]
    of_the_whole = [problem for problem in dataset.problems if not problem.cases]
    fatal = tuple(problem for problem in (*of_the_whole, *of_all) if problem.severity == "error")
    found = (*_join_problems(problems), *of_all, *_image_checks.find_outliers(fingerprint.cases, looks))
    found = tuple(accepted_findings.apply_acceptances(found, cohort, looks))
    usable, groups = replace(usable, problems=found), leakage.joined_groups(pairs)
    return Examination(usable, fingerprint, found, fatal, groups, tried, pairs, looks, few)


def _join_problems(problems: Sequence[Problem]) -> list[Problem]:
    """One problem for all cases that have it."""
    cases: dict[Problem, list[str]] = {}
    # Notes of readers that differ only in numbers, or in names in brackets, are one; those of the first are stated.
    notes: dict[str, str] = {}
    for problem in problems:
        of_reader = problem.why == READ_SO
        kind = NUMBERS.sub("#", IN_BRACKETS.sub("", problem.what))
        what = notes.setdefault(kind, problem.what) if of_reader else problem.what
        cases.setdefault(replace(problem, what=what, cases=()), []).extend(problem.cases)
    return _of_many_cases([replace(problem, cases=tuple(dict.fromkeys(found))) for problem, found in cases.items()])


def _of_many_cases(problems: Sequence[Problem]) -> list[Problem]:
    """One problem for many that differ in their numbers alone; of files that cannot be used with the first file."""
    alike: dict[tuple[str, ...], list[tuple[Problem, str, str]]] = {}
    for problem in problems:
        where, colon, fault = problem.what.partition(": ") if problem.why == UNUSABLE else ("", "", problem.what)
        if problem.cases and bool(colon) == (problem.why == UNUSABLE):
            texts = (_without_numbers(problem, text) for text in (fault, problem.why, problem.remedy))
            alike.setdefault((problem.severity, *texts), []).append((problem, where, fault))
    joined: dict[Problem, Problem | None] = {}
    for group in alike.values():
        problems_of_group = [problem for problem, _, _ in group]
        if len(problems_of_group) >= MANY:
            cases = tuple(dict.fromkeys(case for one in problems_of_group for case in one.cases))
            _, where, _ = group[0]
            what = _first_of(list(dict.fromkeys(fault for _, _, fault in group))) + (
                f", as in {where}" if where else ""
            )
            joined |= dict.fromkeys(problems_of_group) | {
                problems_of_group[0]: replace(problems_of_group[0], what=what, cases=cases)
            }
    return [one for problem in problems if (one := joined.get(problem, problem)) is not None]


def _without_numbers(problem: Problem, text: str) -> str:
    """Errors may quote the very numbers in which they differ."""
    return NUMBERS.sub("#", text) if problem.severity == "error" else UNQUOTED.sub(lambda found: found[1] or "#", text)


def _first_of(faults: Sequence[str]) -> str:
    """The first few of texts that differ in their numbers, the words before them once, and how many more there are."""
    start = next((found.start() for found in UNQUOTED.finditer(faults[0]) if not found[1]), 0)
    common = faults[0][:start]
    if not all(fault.startswith(common) for fault in faults):
        common = ""
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return common + "; ".join([*(fault[len(common) :] for fault in faults[:SHOWN]), *more])


# Checks of slides: tissue, sharpness, and the coarse picture at which all other checks look.


def looked_at(image: Image) -> Image:
    """A slide as the picture of its coarsest level that is no smaller than `LOOKED_AT`; other images as they are."""
    if not image.is_slide:
        return image
    return image.level(image.level_within(max(image.geometry.shape) / LOOKED_AT))


def slide_problems(case: Case, image: Image) -> Iterator[Problem]:
    """A slide without tissue, one that is out of focus, and one that does not state the size of its pixels."""
    if not image.is_slide or (mask := coarse_mask.tissue_of(image)) is None:
        return
    if not mask.inside.any():
        yield Problem.warning(
            "no tissue is found on the slide",
            (case.id,),
            "a model would see glass",
            "Look at it; --set preprocessing.tissue=none takes all of it",
        )
        return
    detail = finest_detail(image, mask)
    if detail is not None and detail < LEAST_DETAIL:
        yield Problem.warning(
            f"the slide looks out of focus: the detail of its pixels is {detail:.2f} of that of pixels twice as long",
            (case.id,),
            "cells cannot be told",
            "Scan it again",
        )
    if image.spacing is None:
        yield Problem.note(
            "the slide does not state the size of its pixels",
            (case.id,),
            "lengths and areas stay unknown",
            "Give it with --mm-per-pixel",
        )


def unlike_pixels(fingerprint: Fingerprint) -> Iterator[Problem]:
    """Slides whose pixels are far longer or shorter than those of the middle one."""
    sides = {case.id: max(case.steps) for case in fingerprint.cases if case.modality == MODALITY and case.physical}
    if not sides:
        return
    middle = float(np.median(list(sides.values())))
    unlike = [name for name, side in sides.items() if max(side / middle, middle / side) > UNLIKE_PIXELS]
    if unlike:
        listed = sorted({f"{sides[name]:.3g}" for name in unlike})
        yield Problem.warning(
            f"pixels of {errors.list_phrase(listed)} mm where the middle slide has {middle:.3g} mm",
            tuple(unlike),
            "cells are of another size there",
            "Train with --set preprocessing.spacing, which brings all to one size, or correct the file",
        )


def finest_detail(image: Image, mask: CoarseMask) -> float | None:
    """The detail of pixels over that of pixels twice as long, the median of squares of tissue; None without one."""
    places = np.argwhere(mask.inside)
    step = max(1, len(places) // SQUARES)
    shares = []
    for place in places[step // 2 :: step]:
        corner = [int(index * n) for index, n in zip(place, mask.block, strict=True)]
        region = tuple(
            slice(start, min(start + SIDE, size)) for start, size in zip(corner, image.geometry.shape, strict=True)
        )
        colours = np.asarray(image.pixels[(slice(None), *region)])
        if colours.shape[1:] == (SIDE, SIDE) and (coarse_mask.saturation(colours) > coarse_mask.PALEST).mean() > DYED:
            square = channel_stack.luma(colours)[0]
            halves: Floats = square.reshape(SIDE // 2, 2, SIDE // 2, 2).mean(axis=(1, 3))
            shares.append(_roughness(square) / max(_roughness(halves), LEAST_ROUGHNESS))
    return float(np.median(shares)) if shares else None


def _roughness(square: Array) -> float:
    """The root mean square of the second differences, of greys from 0 to 255."""
    middle, *around = (
        square[1:-1, 1:-1], square[:-2, 1:-1], square[2:, 1:-1], square[1:-1, :-2], square[1:-1, 2:],
    )  # fmt: skip
    return float(np.sqrt(np.mean((4 * middle - sum(around)) ** 2)))
