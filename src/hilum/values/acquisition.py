"""How an image was measured, as JSON and arrays state it, and what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum.errors import FormatError
from hilum.values.voxel_images import Array

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

# More views than this, none above so many degrees: the angles of a scanner in radians.
FEWEST_VIEWS, LARGEST_RADIANS = 8, 7.0
LENGTHS, WHOLE_NUMBERS, ARRAYS = ("bin_mm", "i0"), ("bins", "coils"), ("mask", "sensitivities")
# The share of k-space about its middle in which its peak lies.
MIDDLE = 0.5
# The share of lines without any signal from which some were not sampled.
EMPTY = 0.1
# Fields beside the image that each kind takes, of which those of rays are needed.
RAYS = ("angles_deg", "bin_mm", "bins")
TAKEN: Mapping[str, tuple[str, ...]] = {
    "parallel": (*RAYS, "counts", "i0"),
    "cartesian": ("coils", "mask", "sensitivities"),
}


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One way of measuring an image.

    kind:          parallel or cartesian
    shape:         (2,) of the image; `spacing` of its pixels in mm; `slice_mm` between slices, where stated
    angles_deg:    (views,) of the direction along which bins lie, from the image's first axis to its second
    bins:          their number in a view, bin_mm apart, centred on the middle of the image
    counts, i0:    whether rays are photons that arrived, of i0 that were sent
    coils:         their number, where k-space has an axis of them
    mask:          (rows, columns) where k-space was sampled
    sensitivities: ([slices,] coils, rows, columns), complex
    Raises FormatError for an acquisition that cannot be.
    """

    kind: str
    shape: tuple[int, int]
    spacing: tuple[float, float] = (1.0, 1.0)
    angles_deg: tuple[float, ...] = ()
    bins: int = 0
    bin_mm: float = 0.0
    counts: bool = False
    i0: float = 0.0
    coils: int = 0
    slice_mm: float = 0.0
    mask: Array | None = None
    sensitivities: Array | None = None
    where: str = field(default="acquisition", repr=False)

    def __post_init__(self) -> None:
        for problem, remedy in self._faults():
            raise FormatError(problem, self.where, remedy)

    @classmethod
    def from_record(cls, record: Any, where: str = "acquisition") -> Acquisition:
        """The acquisition that a mapping states; arrays may stand in it.

        Raises FormatError for what no kind takes.
        """
        if not isinstance(record, Mapping) or record.get("kind") not in TAKEN:
            raise FormatError("states no kind of acquisition", where, f'Give {{"kind": ...}}: {" or ".join(TAKEN)}')
        kind, image = record["kind"], record.get("image")
        if not isinstance(image, Mapping) or not image.keys() <= {"shape", "spacing_mm"} or "shape" not in image:
            remedy = 'Give "image": {"shape": [128, 128], "spacing_mm": [1, 1]}'
            raise FormatError("does not state the image", where, remedy)
        if unknown := sorted(record.keys() - {"kind", "image", *TAKEN[kind]}):
            remedy = f"{kind} takes {', '.join(TAKEN[kind])}"
            raise FormatError(f"states {', '.join(unknown)}, which {kind} does not take", where, remedy)
        values = {name: one for name, one in record.items() if name not in ("kind", "image")}
        try:
            values |= {name: float(values[name]) for name in LENGTHS if name in values}
            values |= {name: np.asarray(values[name]) for name in ARRAYS if values.get(name) is not None}
            if "angles_deg" in values:
                values["angles_deg"] = tuple(float(one) for one in values["angles_deg"])
            values |= {name: int(values[name]) for name in WHOLE_NUMBERS if name in values}
            rows, columns = (int(one) for one in image["shape"])
            first, second, *step = (float(one) for one in image.get("spacing_mm", (1, 1)))
            values["slice_mm"] = sum(step)
        except (TypeError, ValueError) as error:
            raise FormatError(f"states what is no number ({error})", where, "Correct it") from error
        return cls(kind, (rows, columns), (first, second), where=where, **values)

    @property
    def is_ray_sum(self) -> bool:
        """Whether bins hold integrals along rays."""
        return self.kind == "parallel"

    def as_record(self) -> Mapping[str, PlainValue]:
        """The JSON from which it can be made again, without arrays."""
        spacing = [*self.spacing, *([self.slice_mm] if self.slice_mm else [])]
        image = {"shape": list(self.shape), "spacing_mm": spacing}
        stated = [one for one in TAKEN[self.kind] if one not in ARRAYS and getattr(self, one)]
        return {"kind": self.kind, "image": image, **{one: getattr(self, one) for one in stated}}

    def _faults(self) -> Iterator[tuple[str, str]]:
        """What cannot be, with what to do."""
        angles, mask, maps = self.angles_deg, self.mask, self.sensitivities
        if min(self.shape) < 1 or min(self.spacing) <= 0:
            yield "states an image without size", "Correct its shape"
        if missing := [one for one in RAYS if self.is_ray_sum and not getattr(self, one)]:
            yield f"lacks {', '.join(missing)}", f"{self.kind} needs {', '.join(RAYS)}"
        if not np.isfinite([self.bin_mm, self.i0, *self.spacing, *angles]).all() or min(self.bin_mm, self.i0) < 0:
            yield "states a length or an angle that cannot be", "Correct it"
        if len(angles) >= FEWEST_VIEWS and np.abs(angles).max() <= LARGEST_RADIANS:
            words = f"{len(angles)} views, none above {LARGEST_RADIANS:g} degrees, as angles in radians have"
            yield f"has {words}", "State angles_deg in degrees"
        if self.counts and self.i0 <= 0:
            yield "has counts, but no photons that were sent", "State i0, above 0"
        if mask is not None and not set(np.unique(mask).tolist()) <= {0, 1}:
            yield "has a mask of other values than 0 and 1", "Mark with 1 what was sampled"
        if mask is not None and mask.shape != self.shape:
            yield f"has a mask of {mask.shape} for an image of {self.shape}", "Give rows and columns of the image"
        if mask is not None and not np.any(mask):
            yield "has a mask that samples nothing", "Mark with 1 what was sampled"
        if maps is not None and (maps.ndim not in (3, 4) or maps.shape[-2:] != self.shape):
            words = ", ".join(map(str, self.shape))
            yield f"has sensitivities that are not ([slices,] coils, {words})", "Give one map of each coil"


@dataclass(frozen=True, eq=False)
class Measurement:
    """What a scanner measured of one case.

    data: (slices, *measured), where measured is (views, bins) or ([coils,] rows, columns); as `from_array` makes it
    Raises FormatError for data that are none of this acquisition.
    """

    case: str
    acquisition: Acquisition
    data: Array

    def __post_init__(self) -> None:
        for problem, remedy in self._faults():
            raise FormatError(problem, self.acquisition.where, remedy)

    @classmethod
    def from_array(cls, case: str, acquisition: Acquisition, data: Array) -> Measurement:
        """A measurement of ([slices,] *measured); of k-space the axis before rows is coils where they are stated.

        Raises FormatError for an array that is none of this acquisition.
        """
        maps, axes = acquisition.sensitivities, 2
        if acquisition.kind == "cartesian" and (acquisition.coils or maps is not None):
            axes = 3
        if data.ndim not in (axes, axes + 1) or not data.size:
            problem, last = f"holds data of the shape {data.shape}", "views, bins"
            if not acquisition.is_ray_sum:
                last = "coils, rows, columns" if axes == 3 else "rows, columns"
            raise FormatError(problem, acquisition.where, f"Give data as ([slices,] {last})")
        return cls(case, acquisition, data if data.ndim > axes else data[None])

    def _faults(self) -> Iterator[tuple[str, str]]:
        """What cannot be, with what to do."""
        scan, data, shape = self.acquisition, self.data, self.data.shape[-2:]
        if not np.issubdtype(data.dtype, np.number) or not np.isfinite(data).all():
            yield "holds data that are no finite numbers", "Give numbers only"
        elif scan.is_ray_sum:
            if np.iscomplexobj(data):
                yield "holds complex data of rays", "Give real numbers"
            if shape[0] != len(scan.angles_deg):
                yield f"states {len(scan.angles_deg)} angles for {shape[0]} views", "Give one angle of each view"
            if shape[1] != scan.bins:
                yield f"states {scan.bins} bins for {shape[1]}", "Correct bins"
            if scan.counts and float(data.min()) < 0:
                yield "holds counts below 0", "Give numbers of photons"
        elif not np.iscomplexobj(data):
            yield "holds real data for complex k-space", "Give real and imaginary parts"
        elif shape != scan.shape:
            yield f"holds k-space of {shape} for an image of {scan.shape}", "Correct image.shape"
        else:
            yield from self._kspace_faults()

    def _kspace_faults(self) -> Iterator[tuple[str, str]]:
        scan = self.acquisition
        coils = scan.coils if scan.sensitivities is None else scan.sensitivities.shape[-3]
        if coils and self.data.shape[-3] != coils:
            problem = f"holds {self.data.shape[-3]} coils where {coils} are stated"
            yield problem, "Give one sensitivity of each coil"
        strength = np.abs(self.data).reshape(-1, *scan.shape).sum(axis=0)
        peak = [int(one) for one in np.unravel_index(strength.argmax(), scan.shape)]
        if any(abs(one - size // 2) > MIDDLE * size / 2 for one, size in zip(peak, scan.shape, strict=True)):
            yield f"holds k-space that is not centred: its peak is at {tuple(peak)}", "Apply fftshift to both axes"
        if scan.mask is None and max((strength == 0).all(axis=axis).mean() for axis in (0, 1)) > EMPTY:
            yield "holds empty lines of k-space, and no mask", "Add the array mask, 1 where sampled"
