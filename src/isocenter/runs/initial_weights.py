"""The model whose weights a training begins from: a run, a package, its zip, or a file of weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from isocenter.errors import UsageError
from isocenter.runtime import MEMBERS, WEIGHTS, read_json, unpacked, verify

log = logging.getLogger("isocenter")
RECORD, SCHEMA = "model.json", "isocenter.model"


@contextmanager
def weights_of(start: Path | None) -> Iterator[Path | None]:
    """The file of weights to begin from, for as long as it is needed: a zip is unpacked meanwhile.

    Of a model of several networks, as folds and ensembles are, the weights are those of the first: a mean over
    networks that were trained apart is no network.
    Raises UsageError where there are none, IntegrityError where they are not what was written.
    """
    if start is None:
        yield None
    elif start.suffix == ".safetensors" and start.is_file():
        yield start
    else:
        with unpacked(start) as folder:
            yield _weights_in(folder, start)


def _weights_in(folder: Path, start: Path) -> Path:
    first = folder / "fold_0"
    trained = [one / "checkpoints" / name for one in (folder, first) for name in ("best", "last")]
    for place in (folder, *trained, folder / MEMBERS / "0"):
        if (place / WEIGHTS).is_file():
            verify(place)
            read_json(place / RECORD, SCHEMA)  # of a newer version weights may mean something else
            several = place.is_relative_to(first) or place.is_relative_to(folder / MEMBERS)
            return _announced(place / WEIGHTS, start, several=several)
    for name in (WEIGHTS, "weights_0.safetensors"):
        if (packaged := folder / "isocenter" / name).is_file():
            verify(folder, needed=(f"isocenter/{name}",))
            read_json(packaged.parent / RECORD, SCHEMA)
            return _announced(packaged, start, several=name != WEIGHTS)
    raise UsageError("holds no weights to begin from", str(start), "Give a run, a package or a .safetensors file")


def _announced(weights: Path, start: Path, *, several: bool) -> Path:
    if several:
        log.info("%s is a model of several networks: training begins from the weights of the first", start)
    return weights
