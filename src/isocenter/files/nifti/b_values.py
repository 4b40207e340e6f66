"""The b-values beside a NIfTI: FSL's and BIDS's `.bval`, one number in s/mm² for each frame."""

from __future__ import annotations

from pathlib import Path

from isocenter.errors import FormatError


def b_values_beside(path: Path, stem: str, frames: int | None) -> tuple[float, ...] | None:
    """None without such a file, or for an image without frames; FormatError where it does not fit the image."""
    beside = path.with_name(f"{stem}.bval")
    if frames is None or not beside.is_file():
        return None
    try:
        found = tuple(float(word) for word in beside.read_text(encoding="utf-8").split())
    except ValueError as error:
        raise FormatError(
            f"holds what is no number ({error})", str(beside), "Write one b-value for each frame"
        ) from error
    if len(found) != frames or min(found) < 0:
        problem = f"has {len(found)} b-values for {frames} frames, or one below 0"
        raise FormatError(problem, str(beside), "Write one b-value for each frame")
    return found
