"""Plans for masks in which not every voxel is one of the labels that one reader drew, and what is refused of them.

Regions overlap, voxels are to be ignored, only some slices are drawn, or several people drew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isocenter.belief import numbers_by_name
from isocenter.errors import PlanError, counted
from isocenter.tasks.segmentation.loss import NEIGHBOURS, OF_SHARES
from isocenter.tasks.segmentation.target_codes import codes_of
from isocenter.values import Dataset, Decision, Fingerprint, Label, Sentence, hidden

# The settings of a segmentation that are about this.
PARTLY = ("regions", "ignore", "background", "sparse", "readers", "observers")
# The settings that hold one number a structure.
BY_NAME = ("weights", "several", "expected_dice")
# The names of `readers.CONSENSUS`, which needs libraries that a packaged model does without.
CONSENSUS_NAMES = ("first", "majority", "staple", "soft")
# Where less than this share of the voxels is drawn, patches are centred on it and surfaces are not measured.
LITTLE = 0.5
# Fewer readers have no majority.
FEWEST_READERS = 3
NNUNET_REGIONS = "arXiv:2011.00848"
NNUNET_IGNORE = "arXiv:2403.12834"
PARTLY_SENTENCES: Mapping[str, Sentence] = {
    "regions": Sentence("Structures that overlap are made of the values {each}", "No two structures overlap"),
    "ignore": Sentence(
        "The value {value} of the masks is ignored", "No value of the masks is ignored", zero_counts=True
    ),
    "background": Sentence("The value {value} of the masks is the background", "The background of the masks is 0"),
    "sparse": Sentence("Masks are known in single {value} only", "Masks are known as a whole"),
    "readers": Sentence("Where several readers drew a case, the network learns by the rule {value}"),
    "observers": Sentence("The readers are {value}", "No readers are named"),
}


def partly_decisions(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The settings in `PARTLY` for these training cases."""
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
    because = f"only {100 * share:.3g} % of the voxels of the training masks are known: patches are drawn about them"
    return Decision("voxels", because, NNUNET_IGNORE)


def _readers(dataset: Dataset) -> dict[str, Decision]:
    names = list(dataset.readers)
    if len(names) < 2:
        nobody = Decision([], "the data set does not name its readers")
        return {"readers": Decision("first", "each case was drawn once"), "observers": nobody}
    who = f"{counted(len(names), 'reader')} drew the cases"
    if len(names) < FEWEST_READERS:
        chosen = Decision(
            "first",
            f"{who}, who have no majority: the network learns {names[0]}, and the other shows how far readers agree",
        )
    else:
        chosen = Decision("majority", f"{who}: the network learns the majority")
    return {"readers": chosen, "observers": Decision(names, "the data set names them")}


def partly_from(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{setting in `PARTLY`: its value} of a plan or a record; without them every voxel of one mask is a label."""
    regions, ignore = settings.get("regions"), settings.get("ignore")
    return {
        "regions": {str(name): tuple(int(v) for v in own) for name, own in regions.items()} if regions else None,
        "ignore": None if ignore is None else int(ignore),
        "background": int(settings.get("background") or 0),
        "sparse": settings.get("sparse"),
        "readers": str(settings.get("readers", "first")),
        "observers": tuple(str(name) for name in settings.get("observers") or ()),
    }


def check_partly(labels: Sequence[Label], loss: str, settings: Mapping[str, Any]) -> None:
    """PlanError names the setting that cannot be."""
    _check_regions({label.value for label in labels}, settings["regions"] or {})
    ignore, background, sparse = settings["ignore"], settings["background"], settings["sparse"]
    if ignore is not None and ignore == background:
        remedy = "Say with --labels which value is ignore and which is background"
        raise PlanError(f"{ignore} cannot be both to ignore and background", "task.ignore", remedy)
    if sparse not in (None, "voxels", "slices"):
        raise PlanError(f"{sparse!r} says nothing of masks", "task.sparse", "Give voxels, slices or none")
    if settings["readers"] not in CONSENSUS_NAMES:
        remedy = f"Choose one of {', '.join(CONSENSUS_NAMES)}"
        raise PlanError(f"readers are not combined by {settings['readers']!r}", "task.readers", remedy)
    divided = settings["readers"] == "soft" and len(settings["observers"]) > 1
    if divided and loss not in OF_SHARES:
        problem = f"{loss} cannot learn the share of readers"
        raise PlanError(problem, "task.loss", f"Choose --set task.loss={OF_SHARES[0]}, or majority for task.readers")
    if divided:
        _ = codes_of(len(labels), len(settings["observers"])).unknown  # refuses too many ways of being divided
    if (ignore is not None or sparse is not None) and (near := sorted(NEIGHBOURS & set(loss.split("+")))):
        problem = f"{near[0]} looks at a voxel's neighbours, and not all of them are known"
        raise PlanError(problem, "task.loss", "Choose --set task.loss=dice+ce")


def suited_loss(settings: Mapping[str, Any]) -> dict[str, Decision]:
    """A loss that can learn from readers' shares, or from masks known in parts, where the planned one cannot."""
    loss = settings["loss"]
    if settings["readers"] == "soft" and len(settings["observers"] or ()) > 1 and loss not in OF_SHARES:
        because = f"{loss} cannot learn the share of readers, which task.readers asks for"
        return {"task.loss": Decision(OF_SHARES[0], because)}
    partly = settings["ignore"] is not None or settings["sparse"] is not None
    if not partly or not NEIGHBOURS & set(loss.split("+")):
        return {}
    because = f"{loss} looks at the neighbours of a voxel, of which not all are known"
    return {
        "task.loss": Decision("dice+ce", because),
        "task.centrelines": Decision([], "what is known in parts has no centreline"),
    }


def numbers_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """{setting in `BY_NAME`: {structure: number}, or None} of a plan or a record."""
    return {name: numbers_by_name(settings.get(name)) for name in BY_NAME}


def tolerance_from(
    given: Any, labels: Sequence[Label], regions: Mapping[str, Sequence[int]] | None
) -> Mapping[str, float] | float:
    """The mm of a plan or a record: one for all, or by the name of a structure.

    Where they were planned for labels that regions are made of: of a region the largest of its own.
    """
    if not isinstance(given, Mapping):
        return float(given)
    given = {str(name): float(value) for name, value in given.items()}
    if regions is None:
        return given
    tolerances = {}
    for name, values in regions.items():
        own = [given[label.name] for label in labels if label.value in values and label.name in given]
        if name in given or own:
            tolerances[name] = given[name] if name in given else max(own)
    names = {label.name for label in labels}
    return {**{name: tolerance for name, tolerance in given.items() if name not in names}, **tolerances}


def _check_regions(values: set[int], regions: Mapping[str, Sequence[int]]) -> None:
    for name, own in regions.items():
        if not own or not set(own) <= values:
            problem = f"{name} is made of {list(own)}, and labels have the values {sorted(values)}"
            raise PlanError(problem, "task.regions", "Give values of task.labels")
    if overwritten := hidden(regions):
        name, later = overwritten
        problem = f"{name} is marked by {regions[name][0]}, which {later} holds too"
        raise PlanError(problem, "task.regions", "Put first in each region the value that no later region holds")
