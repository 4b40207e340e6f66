"""A cascade: a second network that sees the image and what a first one said of it."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from isocenter.runtime.before import Told, numbered
from isocenter.runtime.model import Model, image_of
from isocenter.runtime.preprocessing import Preprocessing
from isocenter.runtime.record_files import joined
from isocenter.runtime.smaller_batches import shrinking
from isocenter.values import Case, Image, Prediction

EARLIER = "stage before"


@dataclass(frozen=True, eq=False, repr=False)
class Cascaded(Model):
    """The second stage, which sees the label map of the first beside each image.

    first: of which the result alone is taken, whole and on the image's own grid
    """

    first: Model | None = None

    @classmethod
    def of(cls, second: Model, first: Model) -> Cascaded:
        """Two models as one; the digest of its weights is that of both."""
        parts = {one.name: getattr(second, one.name) for one in fields(Model)}
        digests = [one.record.get("weights_sha256") for one in (first, second)]
        if all(digests):
            parts["record"] = {**second.record, "weights_sha256": joined([str(one) for one in digests])}
        return cls(**parts, first=first)

    def predict(self, subject: Image | Case | str | Path, *given: Any, **options: Any) -> Prediction:
        """As of any model; both stages mirror windows or neither does, and the first always sees the whole image."""
        assert self.first is not None  # noqa: S101 - a cascade is made with it
        image, _ = image_of(subject)
        if isinstance(subject, Case) and options.get("covariates") is None:
            options["covariates"] = subject.covariates or None
        if self._goes_by_frame(image):
            return super().predict(image, *given, **options)  # which comes back here with each frame
        said = self.first.predict(image, mirror=options.get("mirror"), covariates=options.get("covariates"))
        if not isinstance(self.preprocessing, Preprocessing):
            return super().predict(_joined(image, said), *given, **options)
        preprocessing = Told.by(self.preprocessing, numbered(said, self.first.task.labels))
        second = Model(**{one.name: getattr(self, one.name) for one in fields(Model)})
        return replace(second, preprocessing=preprocessing).predict(image, *given, **options)


def careful(model: Model) -> Model:
    """The model that goes on with fewer windows at once where memory runs out; of a cascade either stage."""
    made = replace(model, run=shrinking(model.run))
    if not isinstance(made, Cascaded) or made.first is None:
        return made
    return replace(made, first=careful(made.first))


def _joined(image: Image, said: Prediction) -> Image:
    """The label map as one more channel, as the preprocessing of other programs takes it."""
    return Image(
        np.concatenate([image.data.astype(np.float32, copy=False), np.asarray(said.data)[None]]),
        image.geometry,
        modality=image.modality,
        channels=(*image.channels, EARLIER),
        padding=image.padding,
        source=image.source,
    )
