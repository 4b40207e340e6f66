"""A cascade: a second network that sees the image and what a first one said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.runtime.model import Model, image_of
from isocenter.values import Case, Image, Prediction

EARLIER = "stage before"


@dataclass(frozen=True, eq=False, repr=False)
class Cascaded(Model):
    """The second stage; the label map of the first becomes one more channel of each image.

    first: of which the result alone is taken, whole and on the image's own grid
    """

    first: Model | None = None

    def predict(self, subject: Image | Case | str | Path, *given: Any, **options: Any) -> Prediction:
        """As of any model; both stages mirror windows or neither does."""
        image, _ = image_of(subject)
        assert self.first is not None  # noqa: S101 - a cascade is made with it
        said = self.first.predict(image, mirror=options.get("mirror"))
        joined = np.concatenate([image.data.astype(np.float32, copy=False), np.asarray(said.data)[None]])
        both = Image(
            joined,
            image.geometry,
            modality=image.modality,
            channels=(*image.channels, EARLIER),
            padding=image.padding,
            source=image.source,
        )
        return super().predict(both, *given, **options)
