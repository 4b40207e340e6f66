"""Pictures with reports: bright ones have a finding, of which the report says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

# A word that nothing else holds.
WORD = "zauberberg"


def reported_pictures(folder: Path, count: int = 24) -> Path:
    """A table of pictures, half of them bright, each of its own patient, and a report that says which."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(0), []
    for n in range(count):
        pixels = rng.normal(90 + 60 * (n % 2), 20, (32, 32)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
        report = f"A {WORD} in the left lobe. Effusion." if n % 2 else f"No {WORD}. Heart normal."
        rows.append({"file": f"{n}.png", "patient": f"p{n}", "report": report})
    pd.DataFrame(rows).to_csv(folder / "reports.csv", index=False)
    return folder / "reports.csv"
