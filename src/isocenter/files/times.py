"""Times of frames: even ones from the step that a header states, and the step of even ones."""

from __future__ import annotations

import numpy as np

from isocenter.errors import FormatError

# Each frame has a time in memory, whatever little its voxels take.
MOST_FRAMES = 1 << 20


def even_times(step: float | None, frames: int, where: str) -> tuple[float, ...] | None:
    """s of each frame from the first; None where the step is unknown or cannot be.

    Raises FormatError for more frames than anybody takes.
    """
    if frames > MOST_FRAMES:
        raise FormatError(f"claims {frames} frames", where, "The header is damaged: get the file again")
    return tuple(n * step for n in range(frames)) if step is not None and np.isfinite(step) and step > 0 else None


def uniform_step(times: tuple[float, ...] | None) -> float | None:
    """Seconds between frames where they are even within 0.1 %, else None."""
    if times is None or len(times) < 2:
        return None
    steps = np.diff(times)
    step = (times[-1] - times[0]) / (len(times) - 1)
    return float(step) if step > 0 and np.allclose(steps, step, rtol=1e-3, atol=0) else None
