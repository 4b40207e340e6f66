"""What a preprocessing is to a model: from an image to what the network sees, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from isocenter.values import Image, Slabs


class Prepares(Protocol):
    """A kind of preprocessing; `preparation.preprocessing_of` makes one from a model's record."""

    @property
    def ndim(self) -> int:
        """Axes of the network's grid."""

    @property
    def channels(self) -> tuple[str, ...]:
        """What images have to have, by name and order."""

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """mm between voxels of the network's grid; None where it is the image's own."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Fixed number of voxels of the network's grid; None where it follows from the image."""

    @property
    def modality(self) -> str:
        """DICOM's word, or "unknown"."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Plain values for a model's record."""

    def __call__(self, image: Image, where: str) -> tuple[Any, Any]:
        """(channels, *padded) as the network sees it, and the way back, which knows its `source` geometry."""

    def restored(self, slabs: Slabs, trace: Any) -> Slabs:
        """Finished parts of the network's grid as parts of the source's own grid."""
