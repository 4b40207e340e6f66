"""Objects in parts: concatenations, whose frames are numbered through all of them. PS3.3 C.7.6.16.2.2.4"""

from __future__ import annotations

from collections.abc import Sequence

from hilum import errors
from hilum.errors import FormatError
from hilum.files.dicom import tags
from hilum.files.dicom.header_reading import Header
from hilum.values import grouping

TOGETHER = "Give all parts of the object in one folder"


def join_parts(heads: Sequence[Header]) -> list[list[Header]]:
    """Each object with its parts in the order of their frames; an object that is whole is its only part.

    Raises FormatError, by part, for a concatenation that lacks one.
    """
    uids = [tags.text(head.dataset, "ConcatenationUID") or str(head.path) for head in heads]
    objects = grouping.by_key(zip(uids, heads, strict=True)).values()
    return [_ordered(parts) for parts in objects]


def frame_count(head: Header) -> int:
    """The frames of one part."""
    return tags.whole_number(head.dataset, "NumberOfFrames", head.where) or 1


def _ordered(parts: Sequence[Header]) -> list[Header]:
    if not tags.text(parts[0].dataset, "ConcatenationUID"):
        return list(parts)
    by_offset = {_offset(head): head for head in parts}
    ordered = [by_offset[offset] for offset in sorted(by_offset)]
    totals = {tags.whole_number(head.dataset, "InConcatenationTotalNumber", head.where) for head in parts} - {None, 0}
    numbers = [tags.whole_number(head.dataset, "InConcatenationNumber", head.where) for head in ordered]
    total = max((number for number in totals if number is not None), default=0)
    if len(ordered) < len(parts):
        raise FormatError("has two parts of a concatenation with the same frames", ordered[0].where, "Keep one of them")
    if total > len(ordered):
        there = errors.list_phrase(f"part {number}" for number in numbers if number is not None)
        problem = f"is {there} of a concatenation of {total} parts, and the others are not there"
        raise FormatError(problem, ordered[0].where, TOGETHER)
    following = 0
    for head, number in zip(ordered, numbers, strict=True):
        if _offset(head) != following:
            named = f"part {number}" if number is not None else "a part"
            problem = f"{named} of a concatenation begins at frame {_offset(head) + 1}, and {following} are before it"
            raise FormatError(problem, head.where, TOGETHER)
        following += frame_count(head)
    return ordered


def _offset(head: Header) -> int:
    """The number of frames in all parts before this one."""
    offset = tags.whole_number(head.dataset, "ConcatenationFrameOffsetNumber", head.where)
    if offset is None:
        problem = "is a part of a concatenation, and does not state which of its frames it holds"
        raise FormatError(problem, head.where, "Export the object whole")
    return offset
