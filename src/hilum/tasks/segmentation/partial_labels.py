"""Plans for masks in which not every voxel is one of the labels that one reader contoured.

Regions overlap, voxels are to be ignored, only some slices are contoured, cases know some structures only, or several
people contoured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hilum import errors
from hilum.errors import DatasetError
from hilum.tasks.segmentation.mask_losses import NEIGHBOURS, OF_SHARES
from hilum.tasks.shared import left_right
from hilum.values import Dataset, Decision, Fingerprint, Label, StatedSettings

# The names of `readers.CONSENSUS`, which needs libraries that a packaged model does without.
CONSENSUS_NAMES = ("first", "majority", "staple", "soft")
# Where less than this share of the voxels is contoured, patches are centred on it and surfaces are not measured.
LITTLE = 0.5
# Fewer readers have no majority.
FEWEST_READERS = 3
NNUNET_REGIONS = "arXiv:2011.00848"
NNUNET_IGNORE = "arXiv:2403.12834"
MARGINAL = "arXiv:2007.03868"


def decide_partial_settings(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The settings about this for these training cases."""
    declared = dataset.classes.get("mask", ())
    ignore = next((label.value for label in declared if label.is_ignored), None)
    background = next((label.value for label in declared if label.is_background), 0)
    because = f"the value {ignore} is declared as ignore"
    if ignore is None:
        because = "every value of the masks is a label"
    return {
        "regions": _regions(dataset),
        "ignore": Decision(ignore, because, NNUNET_IGNORE if ignore is not None else ""),
        "background": Decision(
            background, "the data set declares it" if background else "it marks voxels without a label"
        ),
        "sparse": _sparse(ignore, fingerprint),
        **_readers(dataset),
    }


def _regions(dataset: Dataset) -> Decision:
    if not dataset.regions:
        return Decision(None, "no two structures are declared to overlap")
    value = {name: list(values) for name, values in dataset.regions.items()}
    because = "the data set declares structures that overlap: each has an output of its own, judged by itself"
    return Decision(value, because, NNUNET_REGIONS)


def _sparse(ignore: int | None, fingerprint: Fingerprint) -> Decision:
    counts = fingerprint.voxels()
    share = 1 - counts.get(-1 if ignore is None else ignore, 0) / max(1, sum(counts.values()))
    if share >= LITTLE:
        return Decision(None, f"{100 * share:.3g} % of the voxels of the training masks are known")
    because = f"only {100 * share:.3g} % of the voxels of the training masks are known: patches are sampled about them"
    return Decision("voxels", because, NNUNET_IGNORE)


def _readers(dataset: Dataset) -> dict[str, Decision]:
    names = list(dataset.readers)
    if len(names) < 2:
        nobody = Decision([], "the data set does not name its readers")
        return {"readers": Decision("first", "each case was contoured once"), "observers": nobody}
    who = f"{errors.count_phrase(len(names), 'reader')} contoured the cases"
    if len(names) < FEWEST_READERS:
        chosen = Decision(
            "first",
            f"{who}, who have no majority: the network learns {names[0]}, and the other shows how far readers agree",
        )
    else:
        chosen = Decision("majority", f"{who}: the network learns the majority")
    return {"readers": chosen, "observers": Decision(names, "the data set names them")}


def decide_combinations(structures: Sequence[str], dataset: Dataset, fingerprint: Fingerprint) -> Decision:
    """The combinations of structures that cases know, with how many training cases know each structure.

    Raises DatasetError where no training case knows a structure, or a case knows one that is not among them.
    """
    partial = [case for case in dataset if case.known is not None and not case.known.issuperset(structures)]
    if not partial:
        return Decision(None, "every structure was contoured in every case")
    where = str(dataset.root or dataset.name)
    if strange := sorted(set().union(*(case.known or () for case in partial)) - set(structures)):
        problem = f"a case knows {errors.list_phrase(strange)}, and the structures are {errors.list_phrase(structures)}"
        raise DatasetError(problem, where, "Name structures of the masks")
    counts = cases_by_structure(structures, dataset, fingerprint)
    trained = len(fingerprint)
    if lacking := [name for name, count in counts.items() if not count]:
        problem = f"no training case knows {errors.list_phrase(lacking)}"
        raise DatasetError(problem, where, "Leave it out with --labels, or give cases in which it was contoured")
    combinations_known = [tuple(name for name in structures if case.knows(name)) for case in partial]
    of_each = ", ".join(f"{name} in {count}" for name, count in counts.items())
    because = (
        f"of {errors.count_phrase(trained, 'training case')} structures are known so: {of_each}; what is unknown in a "
        "case is a part of its background in the loss, and is not scored there"
    )
    return Decision([list(own) for own in sorted(set(combinations_known))], because, MARGINAL)


def cases_by_structure(structures: Sequence[str], dataset: Dataset, fingerprint: Fingerprint) -> dict[str, int]:
    """{structure: training cases that know it}"""
    partial = {case.id: case for case in dataset if case.known is not None}
    names_of_cases = [partial.get(case.id) for case in fingerprint.cases]
    return {name: sum(case is None or case.knows(name) for case in names_of_cases) for name in structures}


def known_combinations(partial: Sequence[Sequence[str]] | None, names: Sequence[str]) -> tuple[frozenset[str], ...]:
    """The combinations of structures that cases know, and those that they become where left and right change sides."""
    sets = [frozenset(own) for own in partial or ()]
    order = left_right.counterpart_places(names)
    others = {} if order is None else {name: names[place] for name, place in zip(names, order, strict=True)}
    turned = [frozenset(others[name] for name in own) for own in sets] if others else []
    return tuple(dict.fromkeys([*sets, *turned]))


def suited_loss(settings: StatedSettings) -> dict[str, Decision]:
    """A loss that can learn from readers' shares, or from masks known in parts, where the planned one cannot."""
    loss = settings["loss"]
    if settings["readers"] == "soft" and len(settings["observers"] or ()) > 1 and loss not in OF_SHARES:
        because = f"{loss} cannot learn the share of readers, which task.readers asks for"
        return {"task.loss": Decision(OF_SHARES[0], because)}
    if not looks_at_unknown(settings) or not NEIGHBOURS & set(loss.split("+")):
        return {}
    because = f"{loss} looks at the neighbours of a voxel, of which not all are known"
    return {
        "task.loss": Decision("dice+ce", because),
        "task.centrelines": Decision([], "what is known in parts has no centreline"),
    }


def looks_at_unknown(settings: StatedSettings) -> bool:
    """Whether a voxel may have a neighbour of which the loss knows nothing.

    Of a case that knows some structures only, regions are left out; of exclusive labels all that counts is known.
    """
    is_partial = bool(settings["partial"] and settings["regions"])
    return settings["ignore"] is not None or settings["sparse"] is not None or is_partial


def tolerance_of_regions(
    millimetres: Mapping[str, float] | float, labels: Sequence[Label], regions: Mapping[str, Sequence[int]] | None
) -> Mapping[str, float] | float:
    """The mm of one for all, or by the name of a structure.

    Where they were planned for labels that regions are made of: of a region the largest of its own.
    """
    if regions is None or not isinstance(millimetres, Mapping):
        return millimetres
    tolerances = {}
    for name, values in regions.items():
        of_labels = [millimetres[label.name] for label in labels if label.value in values and label.name in millimetres]
        if name in millimetres or of_labels:
            tolerances[name] = millimetres[name] if name in millimetres else max(of_labels)
    names = {label.name for label in labels}
    return {**{name: tolerance for name, tolerance in millimetres.items() if name not in names}, **tolerances}
