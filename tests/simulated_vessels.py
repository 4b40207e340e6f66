"""Curved vessels that cross, as an expert marks them in a fundus picture."""

from __future__ import annotations

import numpy as np


def vessel_net(width: float = 4.0) -> np.ndarray:
    """(480, 480) true where a vessel lies; they are from `width` to 5.6 pixels wider."""
    rows, columns = np.indices((480, 480))
    marked = np.zeros((480, 480), bool)
    for number in range(8):
        across = 40 + 57 * number + 25 * np.sin(columns / (30 + 7 * number) + number)
        marked |= np.abs(rows - across) < width / 2 + 0.4 * number
        down = 460 - 60 * number + 20 * np.cos(rows / (25 + 9 * number))
        marked |= np.abs(columns - down) < width / 2 + 0.4 * (7 - number)
    return marked
