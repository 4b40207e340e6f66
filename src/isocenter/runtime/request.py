"""A request: what a person asks of a prediction beside the image, as one value from the caller to the last stage."""

from __future__ import annotations

from dataclasses import dataclass

from isocenter.errors import UsageError
from isocenter.values import Region


@dataclass(frozen=True)
class Request:
    """Request of a prediction.

    mirror:  whether the network also sees windows mirrored, and the results are averaged; None follows the plan
    region:  of the image's own grid, slices of voxels; everything outside stays background
    overlap: share of a window that the next window covers too; None follows the plan
    seconds: time limit for the windows: the overlap shrinks where it has to
    at_most: s that the windows may take: the image is refused once they are known to take longer
    maps:    whether the uncertainty of every voxel is kept
    allow_large: whether images are predicted that are out of all proportion to those that trained the model
    refined: whether what only improves a result is done too, as the optimisation of a pair after the network
    Raises UsageError for an overlap that is no share.
    """

    mirror: bool | None = None
    region: Region | None = None
    overlap: float | None = None
    seconds: float | None = None
    at_most: float | None = None
    maps: bool = False
    allow_large: bool = False
    refined: bool = True

    def __post_init__(self) -> None:
        if self.overlap is not None and not 0 <= self.overlap < 1:
            problem = f"an overlap of {self.overlap:g}"
            raise UsageError(problem, "--overlap", "Give a share from 0 to below 1, such as 0.25")


AS_PLANNED = Request()
