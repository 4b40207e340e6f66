"""Response of tumours to treatment, by measurement alone: RECIST 1.1 by diameters, PERCIST 1.0 by uptake.

No formula sees what a reader sees: that a lesion without a target progressed unequivocally, that a new one is not a
fracture that heals. The verdict is that of the measurements, with the rule that decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from isocenter.errors import counted
from isocenter.evaluation.lesions import Lesion, LesionLink, Lesions

RECIST = "doi:10.1016/j.ejca.2008.10.026"
PERCIST = "doi:10.2967/jnumed.108.057307"
MOST_TARGETS, MOST_OF_AN_ORGAN = 5, 2
# mm: the least longest diameter of a target, the least short axis of a target node, and that of a normal node.
TARGET_MM, TARGET_NODE_MM, NORMAL_NODE_MM = 10.0, 15.0, 10.0
# mm between planes up to which these hold; beyond, a target is at least two planes long.
THIN_MM = 5.0
# Shares of the sum by which it shrinks (of that at baseline) and grows (over the nadir), and the least growth in mm.
PARTIAL, PROGRESSION, PROGRESSION_MM = 0.3, 0.2, 5.0
# PERCIST: share of SULpeak, and the least change in SUL.
UPTAKE, UPTAKE_SUL = 0.3, 0.8


@dataclass(frozen=True)
class Response:
    """A verdict and the rule that decided. figures: what it rests on"""

    verdict: str
    because: str
    source: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """The record for response.json."""
        return {"response": self.verdict, "because": self.because, "source": self.source, **self.figures}


def targets_of(baseline: Lesions) -> tuple[int, ...]:
    """The numbers of at most five measurable lesions, the largest first, at most two of an organ where it is known."""
    least = max(TARGET_MM, 2 * baseline.thickness if baseline.thickness > THIN_MM else 0.0)
    chosen, held = list[int](), Counter[str]()
    for candidate in sorted(baseline.each, key=lambda lesion: -lesion.extent):
        organ = "lymph nodes" if candidate.is_node else candidate.organ
        is_measurable = candidate.extent >= (TARGET_NODE_MM if candidate.is_node else least)
        if is_measurable and len(chosen) < MOST_TARGETS and (organ is None or held[organ] < MOST_OF_AN_ORGAN):
            chosen.append(candidate.number)
            held[organ or ""] += 1
    return tuple(sorted(chosen))


def recist(baseline: Lesions, after: Lesions, links: Sequence[LesionLink], earlier: Sequence[float] = ()) -> Response:
    """RECIST 1.1 of all lesions together.

    earlier: sums (mm) of the same targets at follow-ups before this one, for the nadir
    """
    targets = targets_of(baseline)
    ours, theirs = ({one.number: one for one in side.each} for side in (baseline, after))
    others = {one.number for one in baseline.each if one.number not in targets and not _is_normal(one)}
    left = _left(links, theirs, others, ours)
    fresh = [link.after[0] for link in links if link.state == "new" and not _is_normal(theirs[link.after[0]])]
    figures: dict[str, Any] = {"targets": list(targets), "others": sorted(others), "new_lesions": len(fresh)}
    if not baseline.each:
        target, because = "", "no lesion was drawn at baseline"
    elif not targets:
        target, because = "", "no lesion at baseline is large enough for a target"
    else:
        target, because, sums = _target(targets, ours, theirs, links, earlier)
        figures |= sums
    other = "" if not others else "CR" if left == 0 else "NE" if left is None else "non-CR/non-PD"
    figures |= {"target_response": target or None, "other_response": other or None}
    if fresh:
        return Response("PD", f"{counted(len(fresh), 'new lesion')}: any makes it progression", RECIST, figures)
    if target == "CR" and other not in ("", "CR"):
        rest = "others are still there" if other != "NE" else "the follow-up image does not reach all others"
        return Response("PR" if other != "NE" else "NE", f"{because}, but {rest}", RECIST, figures)
    return Response(target or other or "NE", because, RECIST, figures)


def _is_normal(lesion: Lesion) -> bool:
    """Whether it is a node that is not enlarged."""
    return lesion.is_node and lesion.size.short < NORMAL_NODE_MM


def _left(
    links: Sequence[LesionLink], after: Mapping[int, Lesion], others: Collection[int], before: Mapping[int, Lesion]
) -> int | None:
    """Number of lesions that are no targets and are still there; None where one is not in the follow-up image."""
    linked = [link for link in links if set(link.before) & set(others)]
    remaining = sum(any(not _is_normal(_as_before(link, after[n], before)) for n in link.after) for link in linked)
    return None if not remaining and any(link.state == "unseen" for link in linked) else remaining


def _as_before(link: LesionLink, lesion: Lesion, before: Mapping[int, Lesion]) -> Lesion:
    """A lesion of the follow-up, a node where it was one at baseline."""
    is_node = all(before[number].is_node for number in link.before) if link.before else lesion.is_node
    return replace(lesion, is_node=is_node)


def _target(
    targets: Sequence[int],
    before: Mapping[int, Lesion],
    after: Mapping[int, Lesion],
    links: Sequence[LesionLink],
    earlier: Sequence[float],
) -> tuple[str, str, dict[str, Any]]:
    """(response of the targets, the rule that decided, sums in mm)."""
    first = sum(before[number].extent for number in targets)
    nadir = min([first, *earlier])
    sums: dict[str, Any] = {"sum_before_mm": round(first, 3), "nadir_mm": round(nadir, 3)}
    linked = [link for link in links if set(link.before) & set(targets)]
    if any(link.state == "unseen" for link in linked):
        return "NE", "a target lies outside the follow-up image", sums
    pieces = [_as_before(link, after[number], before) for link in linked for number in link.after]
    last = sum(one.extent for one in pieces)
    growth, loss = last - nadir, first - last
    sums |= {"sum_after_mm": round(last, 3), "change_percent": round(-100 * loss / first, 3)}
    sums |= {"over_nadir_mm": round(growth, 3)}
    if all(_is_normal(one) for one in pieces):
        return "CR", "every target is gone, and every node below 10 mm", sums
    if nadir == 0:
        return "PD", "targets that were gone are there again", sums
    sums["over_nadir_percent"] = round(100 * growth / nadir, 3)
    if growth >= PROGRESSION_MM and growth >= PROGRESSION * nadir:
        grown = f"the sum is {100 * growth / nadir:.1f} % and {growth:.1f} mm above its nadir"
        return "PD", f"{grown}: from 20 % and 5 mm on", sums
    if loss >= PARTIAL * first:
        return "PR", f"the sum is {100 * loss / first:.1f} % below that at baseline: from 30 % on", sums
    apart = f"the sum changed by {-100 * loss / first:+.1f} % since baseline and by {growth:+.1f} mm since its nadir"
    return "SD", f"{apart}: neither 30 % less nor 20 % and 5 mm more", sums


def percist(before: float, after: float, new: int, least: float | None = None) -> Response:
    """PERCIST 1.0 of the hottest lesions.

    before, after: SULpeak; 0 where no lesion is left
    new:           lesions that were not there
    least:         SULpeak from which on a lesion can be judged: 1.5 times that of the liver and two deviations
    """
    figures = {"sul_peak_before": before, "sul_peak_after": after, "new_lesions": new, "measurable_from": least}
    change, share = after - before, 100 * (after - before) / before
    if new:
        return Response("PMD", f"{counted(new, 'new lesion')}: any makes it progression", PERCIST, figures)
    if after == 0:
        return Response("CMR", "no lesion is left", PERCIST, figures)
    if least is not None and before < least:
        because = f"SULpeak of {before:.2f} is below {least:.2f}, from which on a lesion can be judged"
        return Response("NE", because, PERCIST, figures)
    words = f"SULpeak changed by {share:+.1f} % and {change:+.2f}"
    if abs(share) >= 100 * UPTAKE and abs(change) >= UPTAKE_SUL:
        return Response("PMR" if change < 0 else "PMD", f"{words}: from 30 % and 0.8 on", PERCIST, figures)
    return Response("SMD", f"{words}: less than 30 % or less than 0.8", PERCIST, figures)
