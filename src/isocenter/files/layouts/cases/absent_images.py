"""Cases that lack some of the images that others have: what is there of each is told by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from isocenter.errors import counted
from isocenter.files.layouts.layout import Found
from isocenter.values import Image, Problem, name_alone


def with_holes(cases: Sequence[Found], declared: Sequence[str]) -> tuple[list[Found], list[Problem]]:
    """The cases, those that lack an image with the names of what they have, and who lacks what.

    declared: the images that a case may have; nobody lacks anything where nothing says it
    """
    seen = [case for case in cases if case.images]
    lacking = {name: tuple(case.name for case in seen if name not in case.images) for name in declared}
    problems = [
        Problem(
            "warning",
            f"channel {name}: {len(without)} of {counted(len(seen), 'case')} lack it",
            without,
            "a model learns from the others what it shows, and must do without it in these",
            "Add the files where there are some",
        )
        for name, without in lacking.items()
        if without
    ]
    return [_named(case) if case.images and set(declared) - set(case.images) else case for case in cases], problems


def _named(case: Found) -> Found:
    images = {name_alone(name): load for name, load in case.images.items()}
    named = {name: partial(_as, name, load) for name, load in images.items()}
    return replace(case, images=named, key=f"{case.key}|{','.join(images)}")


def _as(name: str, load: Callable[[], Image]) -> Image:
    return load().named(name)
