"""A kind of reference: the side of the body that a person named, from a column of a table."""

from hilum.values import Problem, ReferenceChecks, ReferenceFacts, ReferenceKind, ReferenceWords
from hilum.values.reference_kind import ReferenceStrata

SIDES = ("left", "right")


def unusable(reference):
    """Why this case cannot be used."""
    if reference.value not in SIDES:
        what, remedy = f"its side is {reference.value!r}", f"Write one of {', '.join(SIDES)}, or leave the case out"
        yield Problem("error", what, (reference.case,), "nothing can be learnt of it", remedy)


def strata(cases):
    """The groups by which a split is stratified."""
    return {case.id: [case.references["side"]] for case in cases if "side" in case.references}


def lines(cohort):
    """What `check` prints."""
    sides = list(cohort.summaries("side").values())
    return {"sides": ", ".join(f"{sides.count(side)} {side}" for side in SIDES)} if sides else {}


SIDE = ReferenceKind(
    "side",
    ReferenceFacts(recorded=str, of_cell=str),
    ReferenceChecks(unusable),
    ReferenceStrata(strata, words="both sides"),
    ReferenceWords("sides", lines=lines),
)
