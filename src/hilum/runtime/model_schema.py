"""The record of a model: what `model.json` holds in a checkpoint and, with more, in a package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NotRequired

from typing_extensions import TypedDict

from hilum.runtime.hardware import MachineRecord
from hilum.runtime.part_settings import GateSettings, PartsRecord
from hilum.values.dataset_fingerprint import FingerprintRecord
from hilum.values.finding_records import CodedNameRecord
from hilum.values.plain_values import PlainValue
from hilum.values.record_schema import FigureRow, RecordSchema, StatedDecision

# Of a task, a preprocessing or windows: its fields by name, which their class reads.
Fields = Mapping[str, PlainValue]


class WeightsSource(TypedDict):
    """The program whose weights a training started from."""

    name: str
    licence: str
    citation: str


class ModelOrigin(TypedDict, total=False):
    """Where a model comes from, and what was measured of it.

    trained, tested: hashes of the cases; limits: what a user must know
    members:         the same of each of several models; fold, folds: of one that is cross-fitted
    began_from:      the weights that training started from, in words; refitted: whether they changed after training
    terms:           what the terms of a loss have come to
    origin and what follows: of a model of another program; description_sha256: of the files that describe its network
    """

    name: str
    data_hash: str | None
    patients_known: bool
    fingerprint: FingerprintRecord
    primary: str
    environment: MachineRecord
    step: int
    validation: float | None
    weights_sha256: str | None
    codes: dict[str, CodedNameRecord]
    measures: list[str]
    repeatability: dict[str, float]
    trained: list[str]
    tested: list[str]
    limits: list[str]
    members: list[ModelOrigin]
    shares: list[float]
    fold: int
    folds: int | list[str]
    unlabelled: Mapping[str, PlainValue]
    objectives: Mapping[str, Mapping[str, PlainValue]]
    inner_fold: int
    untold: str
    began_from: str
    weights_source: WeightsSource
    terms: dict[str, list[float]]
    refitted: bool
    unfinished_training: str
    compression: list[Mapping[str, PlainValue]]
    federation: Mapping[str, PlainValue]
    origin: str
    description_sha256: str
    activation: StatedDecision
    dataset: str
    configuration: str
    trainer: str
    version: str


class FusionArguments(TypedDict, total=False):
    """The covariates of a network, and how they enter; of several networks `context` is a list.

    context: {covariate: how it becomes numbers}
    """

    context: PlainValue
    fusion: Mapping[str, PlainValue]


class NetworkArguments(FusionArguments):
    """The arguments of `factory.build` without the heads, which follow from the task.

    marked:  labels of a first stage, each a channel; first_entry: where its covariates begin in a context of several
    dropout: share that it leaves out in training; embedded: numbers that it gives in place of its answer
    """

    name: str
    channels: int
    spatial_dims: int
    size: Mapping[str, PlainValue]
    dropout: NotRequired[float]
    marked: NotRequired[int]
    first_entry: NotRequired[int]
    embedded: NotRequired[int]


class OnnxUncertainty(TypedDict):
    """The method whose figures the network in ONNX computes itself, and the heads that it computes them of."""

    method: str
    heads: list[str]


# Files of the graph beside its own: its weights, and the half that sees tiles.
OnnxFiles = TypedDict("OnnxFiles", {"beside": list[str]}, total=False)  # noqa: UP013 - its key is no name of ours


class OnnxRecord(OnnxFiles, total=False):
    """Whether a network lies in the package as ONNX too, how far its outputs are from torch's, or why it does not."""

    exported: bool
    because: str
    largest_difference: float
    of: str
    uncertainty: OnnxUncertainty
    each: list[str]
    features: bool
    halves: bool


class LabelRecord(TypedDict):
    """A structure or class: its number and name."""

    value: int
    name: str
    colour: NotRequired[list[int]]
    code: NotRequired[Mapping[str, PlainValue]]


class PackedNetworks(TypedDict):
    """The networks of a package; apart: whether each lies in a package of its own.

    shares: the weight of each, null where all count alike; architectures: of networks that are not alike
    """

    onnx: NotRequired[OnnxRecord]
    members: NotRequired[int]
    architectures: NotRequired[list[NetworkArguments] | None]
    shares: NotRequired[Sequence[float] | None]
    own_scales: NotRequired[bool]
    apart: NotRequired[bool]


class ModelRecord(PartsRecord, PackedNetworks):
    """A model without its weights.

    labels and what follows: of a package; quantised: {backend: files of the network in fewer bits}
    """

    task: Fields
    preprocessing: Fields
    inference: Fields
    network: NetworkArguments
    record: ModelOrigin
    labels: NotRequired[list[LabelRecord]]
    evaluation: NotRequired[list[FigureRow]]
    decisions: NotRequired[dict[str, StatedDecision]]
    environment: NotRequired[MachineRecord]
    quantised: NotRequired[dict[str, list[str]]]


class MembersRecord(TypedDict, total=False):
    """The models that an ensemble averages, which lie in folders by their numbers.

    apart:   the numbers of each model that has a grid of its own; folds: those of each fold
    foreign: {number: the file of another program's model}
    shares:  the weight of each, null where all count alike; weights and because: how these were found
    """

    task: Fields
    inference: Fields
    members: int
    shares: Sequence[float] | None
    apart: list[list[int]]
    folds: list[list[int]]
    foreign: dict[str, str]
    weights: dict[str, float]
    because: str
    guard: GateSettings


MEMBERS_SCHEMA = RecordSchema("hilum.ensemble", MembersRecord)
MODEL_SCHEMA = RecordSchema("hilum.model", ModelRecord)
