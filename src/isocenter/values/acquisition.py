"""How an image was measured, as JSON and arrays state it, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from isocenter.errors import FormatError
from isocenter.values.voxel_images import Array

# More views than this, none above so many degrees: the angles of a scanner in radians.
FEWEST_VIEWS, LARGEST_RADIANS = 8, 7.0
LENGTHS = ("bin_mm", "source_mm", "detector_mm", "i0")
ARRAYS = ("mask", "sensitivities", "attenuation")
WHOLE_NUMBERS = ("bins", "coils")
# The share of k-space about its middle in which its peak lies.
MIDDLE = 0.5
# The share of lines without any signal from which some were not sampled.
EMPTY = 0.1
# Fields beside the image that each kind takes, and those without which it cannot be computed.
RAYS = ("angles_deg", "bin_mm", "bins")
TAKEN: Mapping[str, tuple[str, ...]] = {
    "parallel": (*RAYS, "counts", "i0"),
    "fan": (*RAYS, "source_mm", "detector_mm", "counts", "i0"),
    "emission": (*RAYS, "attenuation"),
    "cartesian": ("coils", "mask", "sensitivities"),
}
NEEDED: Mapping[str, tuple[str, ...]] = {
    "parallel": RAYS,
    "fan": (*RAYS, "source_mm", "detector_mm"),
    "emission": RAYS,
    "cartesian": (),
}


@dataclass(frozen=True, eq=False)
class Acquisition:
    """One way of measuring an image.

    kind:          parallel, fan, emission or cartesian
    shape:         (2,) of the image; `spacing` of its pixels in mm; `slice_mm` between slices, where stated
    angles_deg:    (views,) of the direction along which bins lie, from the image's first axis to its second
    bins:          their number in a view, bin_mm apart, centred on the middle of the image
    source_mm:     from the middle to the source of a fan; detector_mm: on to its flat detector
    counts, i0:    whether rays are photons that arrived, of i0 that were sent
    coils:         their number, where k-space has an axis of them
    mask:          (rows, columns) where k-space was sampled
    sensitivities: ([slices,] coils, rows, columns), complex
    attenuation:   `shape`, per mm, of photons that an emission scan counts
    Raises FormatError for an acquisition that cannot be.
    """

    kind: str
    shape: tuple[int, int]
    spacing: tuple[float, float] = (1.0, 1.0)
    angles_deg: tuple[float, ...] = ()
    bins: int = 0
    bin_mm: float = 0.0
    source_mm: float = 0.0
    detector_mm: float = 0.0
    counts: bool = False
    i0: float = 0.0
    coils: int = 0
    slice_mm: float = 0.0
    mask: Array | None = None
    sensitivities: Array | None = None
    attenuation: Array | None = None
    where: str = field(default="acquisition", repr=False)

    def __post_init__(self) -> None:
        for problem, remedy in self._faults():
            raise FormatError(problem, self.where, remedy)

    @classmethod
    def from_record(cls, record: Any, where: str = "acquisition") -> Acquisition:
        """The acquisition that a mapping states; arrays may stand in it.

        Raises FormatError for what no kind takes.
        """
        kinds = ", ".join(TAKEN)
        if not isinstance(record, Mapping) or record.get("kind") not in TAKEN:
            raise FormatError("states no kind of acquisition", where, f'Give {{"kind": ...}}, one of {kinds}')
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
        return "angles_deg" in NEEDED[self.kind]

    def as_record(self) -> dict[str, Any]:
        """The JSON from which it can be made again, without arrays."""
        spacing = [*self.spacing, *([self.slice_mm] if self.slice_mm else [])]
        record: dict[str, Any] = {"kind": self.kind, "image": {"shape": list(self.shape), "spacing_mm": spacing}}
        stated = [one for one in TAKEN[self.kind] if one not in ARRAYS and getattr(self, one)]
        return record | {one: _plain(getattr(self, one)) for one in stated}

    def _faults(self) -> list[tuple[str, str]]:
        """What cannot be, with what to do."""
        missing = [one for one in NEEDED[self.kind] if not getattr(self, one)]
        known = {one.name: getattr(self, one.name) for one in fields(self) if one.name in LENGTHS}
        angles = np.array(self.angles_deg)
        sampled = None if self.mask is None else np.unique(self.mask)
        widest = np.hypot(*(np.multiply(self.shape, self.spacing) / 2))
        reach = self.bins * self.bin_mm / 2 if self.kind == "fan" else 0.0
        tests = (
            (min(self.shape) < 1 or min(self.spacing) <= 0, "states an image without size", "Correct its shape"),
            (bool(missing), f"lacks {', '.join(missing)}", f"{self.kind} needs {', '.join(NEEDED[self.kind])}"),
            (
                not np.isfinite([*known.values(), *self.spacing, *angles]).all() or min(known.values()) < 0,
                "states a length or an angle that cannot be",
                "Correct it",
            ),
            (
                len(angles) >= FEWEST_VIEWS and float(np.abs(angles).max(initial=0)) <= LARGEST_RADIANS,
                f"has {len(angles)} views, none above {LARGEST_RADIANS:g} degrees, as angles in radians have",
                "State angles_deg in degrees",
            ),
            (self.counts and self.i0 <= 0, "has counts, but no photons that were sent", "State i0, above 0"),
            (
                self.kind == "fan" and self.source_mm <= widest,
                f"has its source inside the image, which reaches to {widest:g} mm",
                "Correct source_mm",
            ),
            (
                reach >= self.source_mm + self.detector_mm > 0,
                "has a fan of more than 90 degrees",
                "Correct bin_mm, source_mm or detector_mm",
            ),
            (
                sampled is not None and not set(sampled.tolist()) <= {0, 1},
                "has a mask of other values than 0 and 1",
                "Mark with 1 what was sampled",
            ),
            (
                self.mask is not None and (self.mask.shape != self.shape or not np.any(self.mask)),
                f"has a mask that samples nothing of an image of {self.shape}",
                "Give rows and columns as in the image",
            ),
            (
                self.sensitivities is not None
                and (self.sensitivities.ndim not in (3, 4) or self.sensitivities.shape[-2:] != self.shape),
                f"has sensitivities that are not ([slices,] coils, {', '.join(map(str, self.shape))})",
                "Give one map of each coil",
            ),
            (
                self.attenuation is not None
                and (self.attenuation.shape != self.shape or not float(np.min(self.attenuation)) >= 0),
                "has an attenuation that is no image of its grid, from 0 on",
                "Give it per mm",
            ),
        )
        return [(problem, remedy) for holds, problem, remedy in tests if holds]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


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
        for holds, problem, remedy in self._faults():
            if holds:
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

    def _faults(self) -> list[tuple[bool, str, str]]:
        """Whether something is wrong with it, what, and what to do."""
        scan, (last, size) = self.acquisition, self.data.shape[-2:]
        if not np.issubdtype(self.data.dtype, np.number) or not np.isfinite(self.data).all():
            return [(True, "holds data that are no finite numbers", "Give numbers only")]
        if scan.is_ray_sum:
            views = len(scan.angles_deg)
            return [
                (np.iscomplexobj(self.data), "holds complex data of rays", "Give real numbers"),
                (last != views, f"states {views} angles for {last} views", "Give one angle of each view"),
                (scan.bins != size, f"states {scan.bins} bins for {size}", "Correct bins"),
                (
                    (scan.counts or scan.kind == "emission") and float(self.data.real.min()) < 0,
                    "holds counts below 0",
                    "Give numbers of photons",
                ),
            ]
        strength = np.abs(self.data).reshape(-1, *scan.shape).sum(axis=0) if (last, size) == scan.shape else None
        coils = 0 if scan.sensitivities is None else scan.sensitivities.shape[-3]
        stated = coils or scan.coils
        faults = [
            (
                not np.iscomplexobj(self.data),
                "holds real data for complex k-space",
                "Give real and imaginary parts",
            ),
            (strength is None, f"holds k-space of {(last, size)} for an image of {scan.shape}", "Correct image.shape"),
            (
                bool(stated) and self.data.shape[-3] != stated,
                f"holds {self.data.shape[-3]} coils where {stated} are stated",
                "Give one sensitivity of each coil",
            ),
        ]
        if strength is not None and strength.any():
            peak = np.unravel_index(strength.argmax(), scan.shape)
            off = [abs(one - size // 2) > MIDDLE * size / 2 for one, size in zip(peak, scan.shape, strict=True)]
            at = tuple(int(one) for one in peak)
            empty = [(strength == 0).all(axis=axis).mean() > EMPTY for axis in (0, 1)]
            faults += [
                (any(off), f"holds k-space that is not centred: its peak is at {at}", "Apply fftshift to both axes"),
                (
                    scan.mask is None and any(empty),
                    "holds empty lines of k-space, and no mask",
                    "Add the array mask, 1 where sampled",
                ),
            ]
        return faults
