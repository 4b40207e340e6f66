"""Splits into training, validation and test cases, and inner folds: by patient, never by image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np

from hilum import errors
from hilum.belief import covering_results
from hilum.belief.operating_points import FEWEST_UNSEEN, OperatingPoint
from hilum.errors import DatasetError, PlanError
from hilum.planning.plan_sections import SplitSettings
from hilum.quality import references
from hilum.tasks import Task, fitting, properties, task_settings
from hilum.transforms import random_draws
from hilum.values import BY_HAND, Case, Dataset, Decision, Plan, Split, dataset_cases, grouping, plan_decisions

TEST_SHARE = 0.2
# Thresholds, and what is compared on validation cases, need many of them: from 20 with few positives no operating point
# follows (bench/claims/operating_points.py).
VAL_SHARE = 0.15
LARGE_SET = 400
FEWEST_OF_LARGE = 100
# Of volumes that are marked voxel by voxel each takes seconds to predict, and says much about a mask.
VOLUME_SHARE = 0.1
MOST_VOLUMES = 20
FEW_PATIENTS = 4
# 500 cases hold a coverage of 90 % within 1.3 points (standard deviation); what they would teach is little for so many.
CALIBRATION_SHARE = 0.1
MOST_CALIBRATING = 500
FEWEST_TO_SPARE = 300
# A set's own validation part of so many cases selects as well by half of them.
HALVED = 240
# Of what each draw is for, so that no two draws share their numbers.
TEST_DRAW = 1
VAL_DRAW = 2
FOLD_DRAW = 3
CALIBRATION_DRAW = 4
CHECKLIST = "doi:10.1148/radiol.220182"
GUARANTEES = "arXiv:2107.07511"

Parts = Mapping[str, Split]
Twins = Sequence[AbstractSet[str]]


def split_dataset(
    dataset: Dataset,
    *,
    seed: int,
    everything: bool = False,
    twins: Twins = (),
    volumes: bool = False,
    calibration: int | None = None,
) -> tuple[Parts, dict[str, Decision]]:
    """{case id: part}, and the decisions "method" and "calibration": how it was made.

    A set's own test part is kept whole. Without one, a fifth of the patients is test; of the rest 15 % select, of sets
    of 400 patients and more (outside their own test part) at least 100 patients. Where 300 patients or more are left to
    train, a tenth of their cases calibrates. Patients are sampled in their rarest class or finding, so that each part
    has all of them; measured values are parted into quarters for it.
    everything: all cases but a set's own test part train, nothing selects
    twins:      groups of cases with nearly the same image, sampled like one patient; in a set's own split a case with
                a twin in test is in no part, and a validation case that has one in training trains
    volumes:    the cases are volumes that are marked voxel by voxel: a tenth, at most 20, selects
    calibration: so many cases calibrate, whatever is usual
    Raises DatasetError where there are too few patients to part.
    """
    published = dict(dataset.splits)
    _refuse_no_training(dataset)
    _refuse_painted_tests(dataset)
    parts: dict[str, Split] = {case.id: published.get(case.id, "train") for case in dataset}
    notes = []
    if "test" in published.values():
        notes.append("the set's own test part")
    elif dataset.painted:
        notes.append("no test part: images that are painted prove nothing of real ones")
    elif not everything:
        chosen = _sample([case for case in dataset if parts[case.id] == "train"], TEST_SHARE, seed, TEST_DRAW, twins)
        parts |= dict.fromkeys(chosen, "test")
        notes.append(
            f"{errors.count_phrase(len(chosen), 'test case')}: a fifth of the patients, sampled by seed {seed}"
        )
    parts, left_out = _without_twins(parts, twins, ("test",))
    notes += _left_out(left_out, "test")
    if everything:
        parts = {key: part if part == "test" else "train" for key, part in parts.items()}
    elif "val" in published.values():
        notes.append("the set's own validation part")
        parts, joined = _with_twins_in_training(dataset, parts, twins)
        if joined:
            notes += [f"{errors.count_phrase(joined, 'case')} of it for training: nearly the same image is there"]
        parts, left_out = _without_twins(parts, twins, ("test", "val"))
        notes += _left_out(left_out, "validation")
    else:
        rest = [case for case in dataset if parts.get(case.id) == "train"]
        share, words = _val_share(rest, _patients(_not_held_out(dataset)), volumes)
        chosen = _sample(rest, share, seed, VAL_DRAW, twins)
        parts |= dict.fromkeys(chosen, "val")
        notes.append(f"{errors.count_phrase(len(chosen), 'validation case')}: {words}")
    if not everything and "calibration" in published.values():
        parts, left_out = _without_twins(parts, twins, ("test", "val", "calibration"))
        notes += _left_out(left_out, "calibration")
    calibrating = Decision(0, "every case trains, so nothing is guaranteed")
    if not everything:
        chosen, calibrating = _calibrating(dataset, parts, seed, twins, calibration)
        parts |= dict.fromkeys(chosen, "calibration")
    _refuse_empty(dataset, parts, ("train",) if everything else ("train", "val"))
    notes = [dataset.parted] if dataset.parted else notes
    because = f"{part_count_words(parts)}, {_group_words(dataset)}; {', '.join(notes)}"
    method = Decision("own" if published and not dataset.parted else "sampled", because, CHECKLIST)
    return parts, {"method": method, "calibration": calibrating}


def without_warned(dataset: Dataset, parts: Parts, warned: Collection[str]) -> Parts:
    """The parts without warned cases that train, select or calibrate; who is tested, only a person leaves out.

    Raises DatasetError where none is left to train or to select.
    """
    needed = [part for part in dataset_cases.SPLITS[:2] if part in parts.values()]
    kept = {case: part for case, part in parts.items() if part == "test" or case not in warned}
    _refuse_empty(dataset.only({*kept}), kept, needed)
    return kept


def _refuse_empty(dataset: Dataset, parts: Parts, needed: Sequence[Split]) -> None:
    """Refuse a split that leaves one of these parts without a case."""
    if not set(needed) <= set(parts.values()):
        raise DatasetError(
            f"{errors.count_phrase(len(dataset), 'case')}{_of_patients(dataset)}: too few to split",
            str(dataset.root or dataset.name),
            "Give more cases, or --all to train on every case",
        )


def _of_patients(dataset: Dataset) -> str:
    """Whose cases they are, where that is known."""
    return f" of {errors.count_phrase(_patients(dataset), 'patient')}" if dataset.patients_known else ""


def part_count_words(parts: Parts) -> str:
    """The number of cases in each part, in words."""
    counts = Counter(parts.values())
    calibrating = f", {counts['calibration']} calibrate" if counts["calibration"] else ""
    selecting = f"{counts['val']} select the checkpoint" if counts["val"] else "none selects the checkpoint"
    return f"{errors.count_phrase(counts['train'], 'case')} train, {selecting}{calibrating} and {counts['test']} test"


def _calibrating(
    dataset: Dataset, parts: Parts, seed: int, twins: Twins, asked: int | None
) -> tuple[list[str], Decision]:
    """Ids of cases that would train or select, and calibrate instead, and why so many."""
    published = list(dataset.splits.values())
    if asked is None and (already := list(parts.values()).count("calibration")):
        return [], Decision(already, "the set has its own calibration part")
    halved = "val" in published and published.count("val") >= HALVED
    source = [case for case in dataset if parts.get(case.id) == ("val" if halved else "train")]
    patients = _patients(source)
    if asked is not None and 2 * asked > len(source):
        problem = f"{asked} of {errors.count_phrase(len(source), 'case')} would calibrate"
        raise PlanError(problem, "split.calibration", f"Give at most {len(source) // 2}")
    if halved:
        count = len(source) // 2
        because = f"half of the set's own {len(source)} validation cases, which suffice"
    elif patients >= FEWEST_TO_SPARE:
        count = min(MOST_CALIBRATING, round(CALIBRATION_SHARE * len(source)))
        because = f"a tenth of {len(source)} cases that could train, at most {MOST_CALIBRATING}"
    else:
        count = 0
        because = f"{errors.count_phrase(patients, 'training patient')} are too few to spare any"
    count = count if asked is None else asked
    if not count:
        return [], Decision(0, f"{because}: sets and intervals use cases that also decide other things")
    chosen = _sample(source, count / len(source), seed, CALIBRATION_DRAW, twins)
    because = f"{because}: they train and choose nothing, so that sets and intervals hold as promised"
    return chosen, Decision(len(chosen) if asked is None else asked, because, GUARANTEES)


def _refuse_no_training(dataset: Dataset) -> None:
    """Refuse a set whose own split has no training case: its test part is kept whole, and nothing else is there."""
    parts_of_cases = [dataset.splits.get(case.id, "train") for case in dataset]
    if not parts_of_cases or "train" in parts_of_cases:
        return
    column = dataset.columns.get("split")
    counts = ", ".join(
        f"{part} for {errors.count_phrase(parts_of_cases.count(part), 'case')}" for part in sorted(set(parts_of_cases))
    )
    raise DatasetError(
        f"{f'column {column}' if column else 'its own split'} says {counts}, and no case is left to train on",
        str(dataset.root or dataset.name),
        "Rename the column to have the parts sampled, or name another one by --column split=COLUMN; to test a model on "
        "these cases give them to `hilum evaluate`"
        if column
        else "Give its training part too; to test a model on these cases give them to `hilum evaluate`",
    )


def _refuse_painted_tests(dataset: Dataset) -> None:
    """DatasetError for painted images as test cases."""
    tested = [case.id for case in dataset if dataset.splits.get(case.id) == "test"]
    if dataset.painted and tested:
        problem = f"{errors.count_phrase(len(tested), 'test case has', 'test cases have')} no image, only a label map"
        remedy = "Give their images, or leave the part out: what is painted proves nothing of real images"
        raise DatasetError(problem, str(dataset.root or dataset.name), remedy)


def split_folds(
    dataset: Dataset, folds: int, *, seed: int, twins: Twins = (), volumes: bool = False, undivided_groups: Twins = ()
) -> tuple[Parts, ...]:
    """{case id: part} of each fold: every case is in the test part of exactly one.

    A patient, and with it the twins of its images, is never parted; classes and findings are spread evenly. Of what a
    fold does not test as many select as in `split`. A set's own test part is in no fold, and what has a twin in it
    neither.
    undivided_groups: groups of cases of which each is left out as a whole, as those of one site
    Raises PlanError for fewer patients than folds.
    """
    _refuse_no_training(dataset)
    if dataset.painted:
        problem = "each fold would test images that are painted from label maps, which proves nothing of real ones"
        raise PlanError(problem, "split.folds", "Leave out --folds, or give images")
    remaining, _ = _without_twins({case.id: dataset.splits.get(case.id, "train") for case in dataset}, twins, ("test",))
    cases = [case for case in dataset if remaining.get(case.id, "test") != "test"]
    people = people_of_cases(cases, [*twins, *undivided_groups])
    count = len(set(people.values()))
    if not 2 <= folds <= count or (count < 3 and not undivided_groups):
        unit = "site" if undivided_groups else "patient" if dataset.patients_known else "case"
        raise PlanError(
            f"{errors.count_phrase(count, unit)} cannot be split into {errors.count_phrase(folds, 'fold')}",
            "split.folds",
            f"Give 2 to {count} folds" if count > 2 else f"Give more {unit}s",
        )
    number = _dealt(cases, people, folds, seed)
    folds_made = []
    for fold in range(folds):
        rest = [case for case in cases if number[case.id] != fold]
        share, _ = _val_share(rest, _patients(_not_held_out(dataset)), volumes)
        selecting = set(_sample(rest, share, seed, VAL_DRAW + FOLD_DRAW * (fold + 1), twins))
        parts: dict[str, Split] = {}
        for case in cases:
            parts[case.id] = "test" if number[case.id] == fold else "val" if case.id in selecting else "train"
        folds_made.append(parts)
    return tuple(folds_made)


def with_synthetic_images(
    splits: Sequence[Parts], method: Decision, synthetic: Collection[str], twins: Twins
) -> tuple[tuple[Parts, ...], Decision]:
    """The parts of each split with synthetic images in training, without those that have a twin in its test part."""
    trained: dict[str, Split] = dict.fromkeys(synthetic, "train")
    made = tuple(_without_twins({**parts, **trained}, twins, ("test",))[0] for parts in splits)
    unlike = "" if method.value == "own" else ", whose model may have been trained on cases that are tested here"
    words = f"{method.because}; {errors.count_phrase(len(synthetic), 'synthetic image')} more for training{unlike}"
    return made, replace(method, because=words)


def folds_decision(
    dataset: Dataset, folds: Sequence[Parts], seed: int, *, volumes: bool = False, by: str = ""
) -> Decision:
    """The split of the cases by cross-validation, in words.

    by: the column of which each fold leaves out whole values
    """
    cases = len(folds[0])
    outside = [case.id for case in dataset if case.id not in folds[0]]
    tested = sum(dataset.splits.get(case) == "test" for case in outside)
    least = min(list(parts.values()).count("test") for parts in folds)
    share_in_words = _val_share(list(dataset), _patients(_not_held_out(dataset)), volumes)[1]
    whole = f"each leaves out whole values of {by}, " if by else f"{_strata_words(dataset)} spread evenly, "
    because = (
        f"{cases} cases lie in {len(folds)} folds of at least {least}, {_group_words(dataset)}, "
        f"{whole}sampled by seed {seed}; to select, {share_in_words}"
    )
    if tested:
        because += f"; the set's own test part of {errors.count_phrase(tested, 'case')} is in no fold"
    if len(outside) > tested:
        near_duplicates = errors.count_phrase(len(outside) - tested, "case")
        because += f"; {near_duplicates} left out: nearly the same image is in the test part"
    return Decision("folds", because, CHECKLIST)


def _group_words(dataset: Dataset) -> str:
    if dataset.patients_known:
        return "by patient"
    return "by case, patients unknown: leakage cannot be excluded"


def _patients(cases: Iterable[Case]) -> int:
    return len({case.patient for case in cases})


def _not_held_out(dataset: Dataset) -> list[Case]:
    """The cases outside the set's own test part, of which none can select."""
    return [case for case in dataset if dataset.splits.get(case.id) != "test"]


def _val_share(cases: Sequence[Case], patients: int, volumes: bool) -> tuple[float, str]:
    """The share that selects of cases that are not tested, and in words.

    patients: so many are outside the set's own test part
    """
    if volumes:
        words = f"a tenth of the other patients, at most {MOST_VOLUMES} cases"
        return min(VOLUME_SHARE, MOST_VOLUMES / max(1, len(cases))), words
    if patients < LARGE_SET:
        return VAL_SHARE, f"{100 * VAL_SHARE:g} % of the other patients"
    words = f"{100 * VAL_SHARE:g} % of the other patients, at least {FEWEST_OF_LARGE} of them"
    return max(VAL_SHARE, min(0.5, FEWEST_OF_LARGE / max(1, _patients(cases)))), words


def _without_twins(
    parts: dict[str, Split], twins: Twins, held_out: tuple[Split, ...]
) -> tuple[dict[str, Split], set[str]]:
    """The parts without cases outside `held_out` that have a twin in it, and those cases."""
    leaking = {
        case
        for group in twins
        if any(parts.get(one) in held_out for one in group)
        for case in group
        if parts.get(case, held_out[0]) not in held_out
    }
    return {case: part for case, part in parts.items() if case not in leaking}, leaking


def _with_twins_in_training(dataset: Dataset, parts: dict[str, Split], twins: Twins) -> tuple[dict[str, Split], int]:
    """The parts with validation patients of whom a twin trains in training too, and how many cases those are.

    Their copies would otherwise leave the training part, which needs cases more. Nothing moves where less than half of
    the validation part would stay.
    """
    cases = [case for case in dataset if parts.get(case.id) in ("train", "val")]
    people = people_of_cases(cases, twins)
    selecting = [case.id for case in cases if parts[case.id] == "val"]
    crossing = [group for group in twins if {"train", "val"} <= {parts.get(case) for case in group}]
    shared = {people[case] for group in crossing for case in group if case in people}
    moved = [case for case in selecting if people[case] in shared]
    if 2 * len(moved) > len(selecting):
        return parts, 0
    return parts | dict.fromkeys(moved, "train"), len(moved)


def _left_out(cases: set[str], part: str) -> list[str]:
    if not cases:
        return []
    return [f"{errors.count_phrase(len(cases), 'case')} left out: nearly the same image is in the {part} part"]


def people_of_cases(cases: Sequence[Case], twins: Twins) -> dict[str, str]:
    """{case id: who is sampled as one}: a patient, with all whose images are twins of theirs, or paired with them."""
    owner = {case.id: dataset_cases.people_of_patient(case.patient)[0] for case in cases}
    stands_for = {person: person for case in cases for person in dataset_cases.people_of_patient(case.patient)}

    def first(patient: str) -> str:
        """The patient who stands for this one."""
        while stands_for[patient] != patient:
            patient = stands_for[patient]
        return patient

    groups = [{owner[case] for case in group if case in owner} for group in twins]
    groups += [set(both) for case in cases if len(both := dataset_cases.people_of_patient(case.patient)) > 1]
    for group in groups:
        same = {first(person) for person in group}
        stands_for |= dict.fromkeys(same, min(same, default=""))
    return {case: first(patient) for case, patient in owner.items()}


def _strata(cases: Sequence[Case], people: Mapping[str, str]) -> list[tuple[str, list[list[Case]]]]:
    """(class or finding, people with their cases) by its name; who has several counts for the rarest of them.

    That each is dealt by what fewest have is the idea of Sechidis et al., doi:10.1007/978-3-642-23808-6_10
    """
    owned = grouping.by_key((people[case.id], case) for case in cases)
    named = strata_names(cases)
    counts = Counter(name for names in named.values() for name in names)
    strata: dict[str, list[list[Case]]] = {}
    for _, cases_of_person in sorted(owned.items()):
        rarest = min((name for case in cases_of_person for name in named[case.id]), key=counts.__getitem__)
        strata.setdefault(rarest, []).append(cases_of_person)
    return sorted(strata.items())


def _sample(cases: Sequence[Case], share: float, seed: int, salt: int, twins: Twins) -> list[str]:
    """Ids of about `share` of the cases, whole patients, from every class alike."""
    people = people_of_cases(cases, twins)
    if len(set(people.values())) < 2:
        return []
    chosen: list[str] = []
    strata = [owners for _, owners in _strata(cases, people)]
    owed = 0.0  # what classes that are too small for a share of their own leave to the next of these
    for number, owners in enumerate(strata):
        quota = share * sum(len(owned) for owned in owners)
        taken = 0
        is_small = quota < 1
        quota += owed if is_small else 0
        order = random_draws.sample_generator(seed, salt, number).permutation(len(owners)).tolist()
        picked: list[int] = []
        for index in order:
            # Who owns too many images for this part is passed over; others follow. Somebody is left to the other side.
            if taken + len(owners[index]) / 2 <= quota and len(picked) < len(owners) - 1:
                taken += len(owners[index])
                picked.append(index)
        if not picked and len(owners) >= FEW_PATIENTS:
            picked.append(min(order, key=lambda index: len(owners[index])))
            taken = len(owners[picked[0]])
        owed = quota - taken if is_small else owed
        chosen += [case.id for index in picked for case in owners[index]]
    if chosen:
        return chosen
    number = max(range(len(strata)), key=lambda number: len(strata[number]))
    order = random_draws.sample_generator(seed, salt, number).permutation(len(strata[number])).tolist()
    return [case.id for case in strata[number][min(order, key=lambda index: len(strata[number][index]))]]


def _dealt(cases: Sequence[Case], people: Mapping[str, str], folds: int, seed: int) -> dict[str, int]:
    """{case id: fold}: like cards, those with the most images first, each to the fold that has least of its class."""
    number: dict[str, int] = {}
    total = np.zeros(folds, dtype=int)
    for stratum, (_, owners) in enumerate(_strata(cases, people)):
        of_class = np.zeros(folds, dtype=int)
        order = random_draws.sample_generator(seed, FOLD_DRAW, stratum).permutation(len(owners))
        for owned in sorted((owners[place] for place in order), key=len, reverse=True):
            fold = int(np.lexsort((total, of_class))[0])
            of_class[fold] += len(owned)
            total[fold] += len(owned)
            number |= dict.fromkeys((case.id for case in owned), fold)
    return number


def strata_names(cases: Sequence[Case]) -> dict[str, list[str]]:
    """{case id: its strata}: its class and each finding; else whether its event happened, or the level of its value.

    An empty name where a case has nothing of all this.
    """
    names: dict[str, list[str]] = {}
    strata = [kind.strata for kind in references.reference_kinds() if kind.strata is not None]
    for rank in sorted({one.rank for one in strata}):
        joint = [one.names(cases) for one in strata if one.rank == rank]
        for case in cases:
            if not names.get(case.id):
                names[case.id] = [name for own in joint for name in own.get(case.id, ())]
    return {case.id: names.get(case.id) or [""] for case in cases}


def _strata_words(dataset: Dataset) -> str:
    """The strata of which every fold has its share, in words."""
    kinds = [kind for kind in references.reference_kinds() if kind.name in dataset.kinds]
    strata = [kind.strata for kind in kinds if kind.strata is not None]
    return min(strata, key=lambda stratum: stratum.rank).words if strata else "each class"


def check_folds(split: SplitSettings) -> None:
    """PlanError for a single fold, and for parts beside folds, which would decide nothing."""
    for name, folds in (("folds", split.folds), ("inner_folds", split.inner_folds)):
        if folds == 1:
            raise PlanError("1 fold leaves nothing to train on", f"split.{name}", "Give 2 or more, or 0 for none")
    for name, value in (("inner_folds", split.inner_folds), ("calibration", split.calibration)):
        if split.folds and value:
            problem = "each fold tests cases that it has not seen, so further parts would decide nothing"
            raise PlanError(problem, f"split.{name}", "Give 0, or leave out --folds")


# Inner folds: networks beside the main one, by which each training case has a prediction of one that has not seen it.
#
# What a task finds after training, a threshold of probability above all, needs many cases whose predictions are honest;
# the validation part of a small set has too few (bench/claims/operating_points.py).

INNER_FOLDS = 3
# Below, each of the networks has too few steps to be like the main one.
LEAST_MINUTES = 10.0
FEWEST_PATIENTS = 20
MEASURED = "bench/findings/training.md"
RULE = "task.operating_point"
THRESHOLDS = "task.thresholds"
RISK = "task.risk"
# Thresholds of intervals, and of groups of people: nobody trains three networks more only for these.
NEED_NO_FOLDS = ("conformal", "thresholds_by_group")


def with_inner_folds(plan: Plan, task: Task, dataset: Dataset, parts: Parts) -> Plan:
    """The plan with how many inner folds there are; what was set by hand stays.

    task: as the plan has it, with what was set by hand
    """
    counts = {part: list(parts.values()).count(part) for part in ("train", "val")}
    people = len({case.patient for case in dataset if parts.get(case.id) == "train"})
    unit = "patient" if dataset.patients_known else "case"
    few_people = errors.count_phrase(people, unit) * (people < FEWEST_PATIENTS)
    promised = _promise_words(plan, dataset, parts)
    scarce = _scarce(plan, dataset, parts) or promised
    private = "privacy.epsilon" in plan and plan["privacy.epsilon"] is not None
    spent = "each further network would spend the privacy budget again" * private
    missing = spent or _dense(plan, task, promised) or _without(plan, task, counts, few_people, scarce)
    is_scarce = promised or counts["val"] >= FEWEST_OF_LARGE
    few = scarce if is_scarce else errors.count_phrase(counts["val"], "validation case")
    because = missing or (
        f"{few} are too few for what is decided after training: each of the "
        f"{counts['train']} training cases is predicted by the one of these networks that has not seen it"
    )
    folds = Decision(0 if missing else INNER_FOLDS, because, "" if missing else MEASURED)
    name = "split.inner_folds"
    by_hand = name in plan and plan.decision(name).because == BY_HAND
    return plan if by_hand else plan.with_decision(name, folds)


def _scarce(plan: Plan, dataset: Dataset, parts: Parts) -> str:
    """The class or finding that needs more than its validation cases for a threshold by a preregistered rule, in words.

    Empty where there is none, or where training cases would not be enough either.
    """
    by_hand = [name for name in plan.names if plan.decision(name).because == BY_HAND]
    preregistered = [name.removesuffix("point") for name in by_hand if plan_decisions.names_decision(name, RULE)]
    thresholds = [name for name in plan.names if plan_decisions.names_decision(name, THRESHOLDS)]
    if not preregistered or not any(plan[name] is None for name in thresholds):
        return ""
    cases = [case for case in dataset if parts.get(case.id) in ("train", "val")]
    points = [OperatingPoint(plan[f"{name}point"], plan[f"{name}confidence"]) for name in preregistered]
    needed = max(one.fewest for one in points)
    names = strata_names(cases)
    whose = {(name, case.patient, parts[case.id]) for case in cases for name in names[case.id]}
    patients_of = Counter(name for name, _ in {one[:2] for one in whose})
    select = Counter(name for name, _, part in whose if part == "val")
    enough = {name for name, count in patients_of.items() if name and count >= max(needed, 2 * FEWEST_UNSEEN)}
    rarest = min(sorted(enough), key=select.__getitem__, default="")
    if not rarest or select[rarest] >= needed:
        return ""
    return f"{errors.count_phrase(select[rarest], 'validation patient')} of {rarest}"


def _promise_words(plan: Plan, dataset: Dataset, parts: Parts) -> str:
    """The patients who are too few for results of a preregistered risk, in words.

    Empty where no risk is preregistered, where calibration cases decide, or where training cases would not be enough.
    """
    needed = 0
    for start in (name.removesuffix("risk") for name in plan.names if plan_decisions.names_decision(name, RISK)):
        names = [name for name in plan.names if name.startswith(start)]
        settings = {name.removeprefix(start): plan[name] for name in names}
        by_hand = {name.removeprefix(start) for name in names if plan.decision(name).because == BY_HAND}
        needed = max(needed, covering_results.fewest_for_risk(settings, by_hand))
    if not needed or any(part == "calibration" for part in parts.values()):
        return ""
    people = {(case.patient, parts.get(case.id)) for case in dataset}
    patients, val = (len({who for who, part in people if part in names}) for names in (("train", "val"), ("val",)))
    few = errors.count_phrase(val, "validation patient" if dataset.patients_known else "validation case")
    return f"{few}, of {needed} for the preregistered risk," if val < needed <= patients else ""


def _dense(plan: Plan, task: Task, promised: str) -> str:
    """Why there are none where each image gives many answers; empty where there may be."""
    if all(head.is_vector for head in task.heads.values()):
        return ""
    if plan["preprocessing.cascade"] is not None:
        return "each fold would need a cascade of its own"
    if not promised:
        return "each image gives many answers, so the validation cases give enough of them"
    if len(plan["training.patch"]) > 2:
        return f"networks of volumes need all the minutes; {promised} are few: --folds or inner folds by hand have more"
    return ""


def _without(plan: Plan, task: Task, counts: Mapping[str, int], few_people: str, scarce: str) -> str:
    """Why there are none; empty where there are.

    few_people: how many train, in words, where they are too few
    """
    if plan["split.folds"]:
        return "each fold tests cases that it has not seen"
    if not counts["val"]:
        return "every case trains, and nothing is decided afterwards"
    found = [setting for setting in task_settings.found_after_training(task) if not setting.endswith(NEED_NO_FOLDS)]
    if not any(_is_open(plan, setting) for setting in found):
        return "nothing is left to decide on validation cases"
    is_tuned_on_train = all("train" in one.tuned_on for one in properties.leaf_tasks(task).values())
    if is_tuned_on_train and not fitting.needs_alignment(task):
        return "its outputs need no baseline, and the validation cases give the risk at which cases are parted"
    if counts["val"] >= FEWEST_OF_LARGE and not scarce:
        return f"{counts['val']} validation cases are enough for what is decided after training"
    if few_people:
        return f"{few_people} are too few to split once more"
    if plan.decision("training.steps").because == BY_HAND:
        return "steps were set by hand, so that no minutes are shared: the validation cases alone decide"
    minutes = plan["training.minutes"]
    if minutes is not None and minutes < LEAST_MINUTES:
        return f"{minutes:g} minutes are too few for {INNER_FOLDS + 1} trainings, which take at least {LEAST_MINUTES:g}"
    return ""


def _is_open(plan: Plan, setting: str) -> bool:
    return f"task.{setting}" in plan and plan[f"task.{setting}"] is None
