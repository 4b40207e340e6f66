"""European Data Format: signals over time, EDF (Kemp et al. 1992, doi:10.1016/0013-4694(92)90009-7) and EDF+ (2003).

The header names the person who was recorded; that is not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hilum.errors import FormatError, GeometryError
from hilum.files.format_options import Format, ReadOptions
from hilum.files.storage import block
from hilum.values import Array, Deferred, Geometry, Image, Source

# Bytes of the header, of one signal in it, and the widths of its fields in their order.
FIXED, OF_SIGNAL = 256, 256
WIDTHS = {
    "label": 16, "transducer": 80, "unit": 8, "low": 8, "high": 8, "least": 8, "most": 8, "filter": 80, "samples": 8,
}  # fmt: skip
ANNOTATIONS = "EDF Annotations"
INTERRUPTED = "EDF+D"
REMEDY = "The file is damaged or cut short: get it again"
MOST_SIGNALS = 9999
NUMBERS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Signal:
    """One signal.

    start, samples: of a record's numbers, its first and how many are its own
    gain, offset:   from the numbers that are stored to those in its unit
    """

    label: str
    unit: str
    start: int
    samples: int
    gain: float
    offset: float


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """One image of one axis in s for all signals of one sampling rate, (channels, samples), in their own units.

    Raises FormatError for a header that contradicts itself and for a file cut short, GeometryError for a recording
    with interruptions.
    """
    del options  # a recording leaves nothing to decide
    with path.open("rb") as file:
        head = file.read(FIXED)
        count = _whole(head[252:256], "number of signals", path)
        if not head.startswith(b"0 ") or not 0 < count <= MOST_SIGNALS:
            raise FormatError("is not an EDF recording", str(path), REMEDY)
        if head[192:236].startswith(INTERRUPTED.encode()):
            problem = f"was interrupted ({INTERRUPTED}), so its samples lie at uneven steps"
            raise GeometryError(problem, str(path), "Export each stretch as a file of its own")
        described = file.read(count * OF_SIGNAL)
    signals = _signals(described, count, path)
    length, seconds = sum(one.samples for one in signals), _number(head[244:252], "duration of a record", path)
    start, records = _whole(head[184:192], "size of the header", path), _whole(head[236:244], "number of records", path)
    complete = (path.stat().st_size - start) // (2 * max(1, length))
    records = complete if records == -1 else records  # the standard's mark of a recording that still runs
    if start != FIXED + count * OF_SIGNAL or records < 1 or complete < records:
        raise FormatError(f"holds {max(0, complete)} records where the header states {records}", str(path), REMEDY)
    channels = [one for one in signals if one.label != ANNOTATIONS and one.samples > 0]
    if not channels or seconds <= 0:
        raise FormatError("holds no signal that lasts", str(path), "Give a recording with signals")
    rates = sorted({one.samples for one in channels}, reverse=True)
    images = {}
    for samples in rates:
        name = path.stem if len(rates) == 1 else f"{path.stem}_{samples / seconds:g}Hz"
        of_rate = [one for one in channels if one.samples == samples]
        images[name] = _image(path, of_rate, (start, records, length), seconds / samples, len(channels) < len(signals))
    return images


def load_signals(path: Path, signals: Sequence[Signal], layout: tuple[int, int, int]) -> Array:
    """The values of signals, (signals, samples) in their units.

    layout: bytes before the records, number of records, numbers in each
    Raises FormatError for a file that has become shorter.
    """
    start, records, length = layout
    values = np.empty((len(signals), records * signals[0].samples), np.float32)
    step = max(1, NUMBERS_AT_ONCE // max(1, length))
    with path.open("rb") as file:
        file.seek(start)
        for first in range(0, records, step):
            count = min(step, records - first)
            stored = np.frombuffer(file.read(2 * count * length), "<i2")
            if len(stored) < count * length:
                raise FormatError("has changed since it was opened", str(path), "Read it again")
            rows = stored.reshape(count, length)
            for row, signal in zip(values, signals, strict=True):
                part = rows[:, signal.start : signal.start + signal.samples].ravel()
                row[first * signal.samples : (first + count) * signal.samples] = part * signal.gain + signal.offset
    return values


def _image(path: Path, signals: Sequence[Signal], layout: tuple[int, int, int], step: float, annotated: bool) -> Image:
    shape = (layout[1] * signals[0].samples,)
    units = tuple(one.unit for one in signals)
    return Image(
        Deferred((len(signals), *shape), np.dtype(np.float32), partial(load_signals, path, tuple(signals), layout)),
        Geometry(shape, np.array([[step, 0.0], [0.0, 1.0]]), oriented=False, unit="s"),
        channels=_different([one.label or str(n) for n, one in enumerate(signals)]),
        notes=("annotations in the recording were left out",) if annotated else (),
        facts={"units": units},
        source=Source("edf", (str(path),)),
    )


def _signals(described: bytes, count: int, path: Path) -> list[Signal]:
    """The signals of a header in which each field stands for all signals before the next field starts."""
    if len(described) < count * OF_SIGNAL:
        raise FormatError("ends within its header", str(path), REMEDY)
    fields: dict[str, list[bytes]] = {}
    at = 0
    for name, width in WIDTHS.items():
        fields[name] = [described[at + n * width : at + (n + 1) * width] for n in range(count)]
        at += count * width
    signals, start = list[Signal](), 0
    for n in range(count):
        label, unit = (fields[name][n].decode("latin-1").strip() for name in ("label", "unit"))
        low, high, least, most = (_number(fields[name][n], name, path) for name in ("low", "high", "least", "most"))
        samples = _whole(fields["samples"][n], "number of samples", path)
        if samples < 0 or (label != ANNOTATIONS and (most <= least or low == high)):
            raise FormatError(f"the range of signal {n + 1} is empty", str(path), "Export the recording again")
        gain = (high - low) / (most - least) if most > least else 1.0
        block.refuse_unusable_scale(gain, low - gain * least, 1 << 15, str(path), f"the ranges of signal {n + 1}")
        signals.append(Signal(label, unit, start, samples, gain, low - gain * least))
        start += samples
    return signals


def _different(labels: list[str]) -> tuple[str, ...]:
    times, so_far, named = Counter(labels), Counter[str](), list[str]()
    for label in labels:
        so_far[label] += 1
        named.append(f"{label} {so_far[label]}" if times[label] > 1 else label)
    return tuple(named)


def _number(field: bytes, what: str, path: Path) -> float:
    try:
        number = float(field.decode("ascii"))
    except ValueError as error:
        raise FormatError(f"its {what} is not a number", str(path), REMEDY) from error
    if not np.isfinite(number):
        raise FormatError(f"its {what} is not finite", str(path), REMEDY)
    return number


def _whole(field: bytes, what: str, path: Path) -> int:
    number = _number(field, what, path)
    if number != int(number):
        raise FormatError(f"its {what} is not a whole number", str(path), REMEDY)
    return int(number)


FORMAT = Format("edf", read)
