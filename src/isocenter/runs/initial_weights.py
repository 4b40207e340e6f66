"""The model whose weights a training begins from: a run, a package, its zip, an nnU-Net folder, a file of weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from isocenter import networks
from isocenter.errors import UsageError
from isocenter.runtime import (
    MEMBERS,
    WEIGHTS,
    is_nnunet,
    nnunet_start,
    read_json,
    unpacked,
    verify,
)
from isocenter.values import Plan

log = logging.getLogger("isocenter")
RECORD, SCHEMA = "model.json", "isocenter.model"
# Endings of files of weights; the content decides how they are read.
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")


@dataclass(frozen=True)
class Source:
    """The weights to begin from, and what is known of their network.

    weights:  a file, for as long as it is needed
    name:     of the model, in reasons
    family, size: of its network; none where the file does not show them
    whole:    whether the size has every setting that matters, and not only those that weights show
    axes:     of its images
    prepared: settings of its preprocessing, as a plan has them
    """

    weights: Path
    name: str
    family: str | None = None
    size: Mapping[str, Any] = field(default_factory=dict)
    whole: bool = True
    axes: int | None = None
    prepared: Mapping[str, Any] = field(default_factory=dict)

    def decisions_for(self, plan: Plan) -> dict[str, Any]:
        """{"section.name": value} of the source that fit the task and the images of a plan."""
        axes = plan["preprocessing.ndim"]
        if self.family is None or self.axes not in (None, axes) or axes not in networks.family_of(self.family).axes:
            return {}
        size = dict(self.size)
        if not self.whole:
            usual, _, _ = networks.size_for(self.family, plan["training.patch"], [[1] * axes], "cpu")
            size = {**usual, **size}
        return {"network.name": self.family, "network.size": size, **dict(self._grid(plan))}

    def _grid(self, plan: Plan) -> Iterator[tuple[str, Any]]:
        """Spacing or shape where the plan has one too, and intensities of the same kind of image."""
        if self.prepared.get("unit", plan["preprocessing.unit"]) == plan["preprocessing.unit"]:
            for name in ("spacing", "shape"):
                if self.prepared.get(name) is not None and plan[f"preprocessing.{name}"] is not None:
                    yield f"preprocessing.{name}", list(self.prepared[name])
        normalisation = self.prepared.get("normalisation")
        alike = self.prepared.get("modality") == plan["preprocessing.modality"]
        if normalisation is not None and alike and len(normalisation) == len(plan["preprocessing.channels"]):
            yield "preprocessing.normalisation", list(normalisation)


@contextmanager
def source_of(start: Path | None) -> Iterator[Source | None]:
    """The source to begin from, for as long as it is needed: a zip is unpacked meanwhile.

    Of a model of several networks, as folds and ensembles are, the weights are those of the first: a mean over
    networks that were trained apart is no network.
    Raises UsageError where there are none, IntegrityError where they are not what was written or would run code.
    """
    if start is None:
        yield None
    elif start.is_file() and start.suffix.lower() in SUFFIXES:
        yield _of_file(start, start)
    elif start.is_dir() and is_nnunet(start):
        file, prepared = nnunet_start(start)
        yield replace(_of_file(file, start), prepared=prepared)
    else:
        with unpacked(start) as folder:
            yield _of_model(folder, start)


def _of_file(file: Path, start: Path) -> Source:
    """The source by the layout of a file; of plain weights nothing else is known."""
    if (known := networks.known_layout(file)) is None:
        return Source(file, start.name)
    layout, content = known
    size = layout.size(content)
    return Source(file, start.name, None if size is None else layout.family, size or {}, whole=False, axes=layout.axes)


def _of_model(folder: Path, start: Path) -> Source:
    first = folder / "fold_0"
    trained = [one / "checkpoints" / name for one in (folder, first) for name in ("best", "last")]
    for member in (folder, *trained, folder / MEMBERS / "0"):
        if (member / WEIGHTS).is_file():
            verify(member)
            several = member.is_relative_to(first) or member.is_relative_to(folder / MEMBERS)
            return _announced(member / WEIGHTS, member / RECORD, start, several=several)
    for name in (WEIGHTS, "weights_0.safetensors"):
        if (packaged := folder / "isocenter" / name).is_file():
            verify(folder, needed=(f"isocenter/{name}",))
            return _announced(packaged, packaged.parent / RECORD, start, several=name != WEIGHTS)
    remedy = f"Give a run, a package, an nnU-Net folder or a file of weights ({', '.join(SUFFIXES)})"
    raise UsageError("holds no weights to begin from", str(start), remedy)


def _announced(weights: Path, record: Path, start: Path, *, several: bool) -> Source:
    content = read_json(record, SCHEMA)  # of a newer version weights may mean something else
    if several:
        log.info("%s is a model of several networks: training begins from the weights of the first", start)
    network, prepared = content["network"], content["preprocessing"]
    name = network["name"] if network["name"] in networks.names() else None
    return Source(weights, start.name, name, network["size"], axes=network["spatial_dims"], prepared=prepared)
