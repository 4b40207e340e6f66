"""Question of a program to a model, and the reply, as they go from one process to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LABELS, PROBABILITIES, VALUES, BOXES, FINDINGS = "labels", "probabilities", "values", "boxes", "findings"
# The types of outputs.
INTEGER, REAL, BYTES = "INT32", "FP32", "BYTES"
# Numbers of an output that is answered as JSON: more take minutes to write and to read.
MOST_IN_JSON = 1 << 21


@dataclass(frozen=True)
class Question:
    """An image for a model. folder: holds the image, and gets the answer.

    digest:     of the model, as `ModelFacts.hash`
    image:      (file, offset in bytes) of its voxels, float32, and their shape, (channels, *spatial)
    affine:     index to RAS+ mm; None for an image without physical size
    wanted:     {output: whether as bytes behind the header}; None for all outputs
    as_bytes:   the same for outputs that `wanted` does not name
    covariates: of the patient
    id:         that the answer repeats
    """

    model: str
    digest: str
    folder: Path
    image: tuple[str, int]
    shape: tuple[int, ...]
    affine: Sequence[Sequence[float]] | None
    wanted: Mapping[str, bool] | None = None
    as_bytes: bool = False
    covariates: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True)
class Reply:
    """The file with the answer to a question, or why there is none.

    header: bytes of its JSON, behind which lie those of the outputs; 0 where JSON is all of it
    """

    status: int = 200
    path: Path | None = None
    header: int = 0
    problem: str = ""
    remedy: str = ""
