"""Pairs of images: the structures and points that are known of both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hilum.values import (
    CaseReference,
    Cohort,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
    slabs,
)
from hilum.values.reference_kind import ReferenceMeasures
from hilum.values.spatial_transform import Correspondence

KIND = "field"


def _measure(reference: CaseReference) -> ReferenceMeasures:
    """{"fixed", "moving": {label value: voxels}, "both": values in both, "points": how many}"""
    pair: Correspondence = reference.value
    sides = {
        name: {}
        if label_map is None
        else {value: count for value, count in slabs.label_voxels(label_map.data).items() if value}
        for name, label_map in (("fixed", pair.fixed_labels), ("moving", pair.moving_labels))
    }
    both = sorted({*sides["fixed"]} & {*sides["moving"]})
    points = 0 if pair.fixed_points is None else len(pair.fixed_points)
    return ReferenceMeasures({**sides, "both": both, "points": points})


def _unusable(reference: CaseReference) -> Iterator[Problem]:
    fixed_labels = reference.value.fixed_labels
    if fixed_labels is None:
        return
    grid = reference.image.geometry
    if not fixed_labels.on_axes_of(grid).geometry.equals(grid):
        yield Problem.error(
            f"the fixed labels lie on another grid than their image: {fixed_labels.geometry.difference(grid)}",
            (reference.case,),
            "nobody knows which voxel is meant",
            "Give a label map that was contoured on the image",
        )


def _case_problems(reference: CaseReference, measures: ReferenceMeasures) -> Iterator[Problem]:
    if reference.value.has_labels and not measures.summary["both"]:
        yield Problem.warning(
            "no structure is contoured in both images",
            (reference.case,),
            "the labels of the pair teach nothing",
            "See that one value stands for one structure in both",
        )


def _lines(cohort: Cohort) -> Mapping[str, str]:
    pairs = list(cohort.summaries(KIND).values())
    if not pairs:
        return {}
    labelled, marked = (sum(bool(one[name]) for one in pairs) for name in ("both", "points"))
    return {"pairs": f"{len(pairs)}, {labelled} with labels of both images, {marked} with points"}


FIELD = ReferenceKind(
    KIND,
    facts=ReferenceFacts(_measure),
    checks=ReferenceChecks(unusable=_unusable, odd=_case_problems),
    words=ReferenceWords("pairs", lines=_lines),
)
