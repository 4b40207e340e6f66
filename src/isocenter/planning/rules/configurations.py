"""The configurations that folds can compare, and the minutes that a comparison takes at least."""

from __future__ import annotations

# Networks of the first stage of a cascade: each marks the training cases that it has not seen.
CROSS_FITS = 2
CASCADE = "cascade"
# {configuration: trainings in a fold}, from the simplest on: by slices, by volumes, by volumes after a first stage.
TRAININGS = {"2d": 1, "3d": 1, CASCADE: CROSS_FITS + 1}
# Fewer show nothing of a configuration.
MINUTES_A_TRAINING = 1.0


def compared_configurations(*, cascade: bool) -> tuple[str, ...]:
    """The names of those that are compared, from the simplest on; cascade: whether the plan has one."""
    return tuple(name for name in TRAININGS if cascade or name != CASCADE)


def least_minutes(folds: int, *, cascade: bool) -> float:
    """Minutes with which each training of a comparison has enough: all configurations get equal parts of them."""
    names = compared_configurations(cascade=cascade)
    return MINUTES_A_TRAINING * folds * len(names) * max(TRAININGS[name] for name in names)
