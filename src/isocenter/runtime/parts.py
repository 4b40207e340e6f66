"""Parts of a model that are found after its training: their settings stand in its record, their arrays in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isocenter.runtime.directions import Directions
    from isocenter.runtime.guard.guard import Guard
    from isocenter.runtime.uncertainty.laplace import Laplace

# {name of a part in a model's record: the file with its arrays}
PART_FILES: Mapping[str, str] = {
    "guard": "guard.safetensors",
    "laplace": "laplace.safetensors",
    "directions": "directions.safetensors",
}


@dataclass(frozen=True, eq=False)
class Parts:
    """Findings of cases for a model after its training.

    guard:      refuses images that are unlike those that trained the model; None for a model that answers for any
    laplace:    the posteriors of its last layers; None for a model without
    directions: along which its training images differ; None of few patients, and of dense answers
    """

    guard: Guard | None = None
    laplace: Laplace | None = None
    directions: Directions | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values for a model's record, of the parts that there are."""
        return {name: part.settings for name, part in vars(self).items() if part is not None}

    def write(self, folder: Path) -> None:
        """The arrays of the parts that there are, into an existing folder."""
        for name, part in vars(self).items():
            if part is not None:
                (folder / PART_FILES[name]).write_bytes(part.content)


WITHOUT_PARTS = Parts()
