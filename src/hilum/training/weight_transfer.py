"""The start of a training from other weights: what is loaded, what moves, and how fast."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilum.errors import IntegrityError, PlanError
from hilum.lazy import torch
from hilum.networks import factory, network_parts
from hilum.networks.layouts.weight_layout import WeightLayout
from hilum.networks.network_parts import ENCODER, HEAD, TensorGroups
from hilum.networks.weight_loading import FRESH, LoadedWeights, TensorOrigin
from hilum.planning import PlanSettings
from hilum.planning.plan_sections import TransferSettings
from hilum.runtime import Context, record_files, torch_networks
from hilum.runtime.model_schema import ModelOrigin
from hilum.training.step import optimisers
from hilum.training.step.optimisers import AT_ONCE, WeightPace

if TYPE_CHECKING:
    from torch.nn import Module

TRANSFER = "transfer.json"
TRANSFER_SCHEMA = "hilum.transfer"
FULL = "full"
HEAD_FIRST = "head_first"
LINEAR_PROBE = "linear_probe"
LORA = "lora"
PROTOTYPES = "prototypes"
# By it layers are known that go by statistics of many batches.
STATISTIC = "running_mean"


def weight_sources(settings: PlanSettings, start: Path | None) -> list[str | Path]:
    """Sources from which a network starts, in this order: the plan's weights, then those of another model."""
    return [source for source in (settings.network.pretrained, start) if source is not None]


def refuse_no_source(settings: PlanSettings, start: Path | None) -> None:
    """PlanError for a transfer without weights to start from: what stands still would be random numbers."""
    chosen = settings.transfer
    if weight_sources(settings, start) or (chosen.mode == FULL and not chosen.frozen and chosen.layer_decay == 1):
        return
    name = "mode" if chosen.mode != FULL else "frozen" if chosen.frozen else "layer_decay"
    problem = f"{getattr(chosen, name)} needs weights to start from, and there are none"
    raise PlanError(problem, f"transfer.{name}", "Give them: --from MODEL, or --pretrained FILE")


def parts_of_network(settings: PlanSettings) -> TensorGroups:
    """Encoder, decoder and head of the plan's network, found without memory or arithmetic."""
    entries = len(Context.from_settings(settings.network.context))
    at = factory.family_of(settings.network.name).features
    with torch.device("meta"), torch.inference_mode():
        module = torch_networks.build_module(settings.task, settings.architecture)
        images = torch.empty(1, settings.preprocessing.inputs, *settings.training.patch)
        return network_parts.tensor_groups(module, at, images, torch.empty(1, entries) if entries else None)


def load_initial_weights(module: Module, settings: PlanSettings, start: Path | None) -> LoadedWeights:
    """Load the weights that the plan or a person names; returns what was loaded, nothing for fresh weights.

    start: a model's weights, which come after the plan's
    Raises PlanError where too little of them fits: the run would start from next to nothing and not say so.
    """
    loaded = LoadedWeights("")
    sources = weight_sources(settings, start)
    groups = parts_of_network(settings).groups if sources else {}
    network = settings.network
    for source in sources:
        options = (source, network.inflation, groups, settings.transfer.minimum)
        loaded = loaded.and_then(factory.load_pretrained(module, network.name, network.size, *options))
    fresh = sum(row.how == FRESH and row.group != HEAD for row in loaded.rows)
    if settings.transfer.mode == PROTOTYPES and fresh:
        problem = f"{fresh} tensors before the last layer are not among the weights, so that features would be random"
        raise PlanError(problem, "transfer.mode", "Give a model of the same network, or full")
    return loaded


@dataclass(frozen=True)
class MovingWeights:
    """Weights that move in a training, and how fast.

    paces: {tensor: its share of the learning rate, and the share of training after which it moves}
    still: tensors that never move
    low_rank: weights to which only a difference of low rank is learnt
    """

    paces: Mapping[str, WeightPace] = field(default_factory=dict)
    still: frozenset[str] = frozenset()
    low_rank: frozenset[str] = frozenset()
    rank: int = 1

    @classmethod
    def from_settings(
        cls, chosen: TransferSettings, rows: Sequence[TensorOrigin], groups: TensorGroups
    ) -> MovingWeights:
        """Weights that move by the plan, for tensors of these origins: what the source lacks always moves."""
        body = [row.name for row in rows if row.how != FRESH and row.group != HEAD]
        count = groups.count
        decay = chosen.layer_decay
        late = chosen.head_share if chosen.mode == HEAD_FIRST else 0.0
        paces = {
            row.name: WeightPace(
                decay ** (count - groups.levels[row.name]) if row.name in groups.levels else 1.0,
                late if row.name in body else 0.0,
            )
            for row in rows
        }
        frozen = {name for name in body if groups.levels.get(name, count) < int(chosen.frozen * count)}
        if chosen.mode in (LINEAR_PROBE, PROTOTYPES):
            frozen = set(body)
        if chosen.mode != LORA:
            return cls(paces, frozenset(frozen))
        return cls(paces, frozenset(body), frozenset(body) - frozen, chosen.rank)

    def pace(self, name: str) -> WeightPace:
        """The pace of a tensor; of a difference of low rank that of its weight."""
        return self.paces.get(optimisers.base_weight_name(name), AT_ONCE)

    def apply(self, module: Module) -> None:
        """Let the network's tensors stand still, and add differences of low rank."""
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name not in self.still)
        if self.low_rank:
            optimisers.with_low_rank(module, self.low_rank, self.rank)

    def keep_statistics(self, module: Module) -> None:
        """Normalisations that stand still go by the statistics that they came with, in training too."""
        for part in self._normalising(module):
            part.eval()

    def measure_no_statistics(self, averaged: Module) -> None:
        """The same of averaged weights, whose statistics are measured anew elsewhere."""
        for part in self._normalising(averaged):
            part.track_running_stats = False

    def _normalising(self, module: Module) -> list[Any]:
        places = {name.removesuffix(f".{STATISTIC}") for name in self.still if name.endswith(f".{STATISTIC}")}
        parts = [module.get_submodule(place) for place in sorted(places)]
        return [part for part in parts if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]


def write_transfer(
    out: Path, loaded: LoadedWeights, module: Module, moving: MovingWeights, chosen: TransferSettings
) -> None:
    """Write what became of each tensor of the network, and whether training moves it.

    module: to which `moving` was applied
    """
    moved = {optimisers.base_weight_name(name) for name, one in module.named_parameters() if one.requires_grad}
    layout = loaded.layout
    moved |= {row.name for row in loaded.rows} - moving.still
    rows = [asdict(replace(row, trained=row.name in moved)) for row in loaded.rows]
    terms = {"source": program_record(layout)} if layout else {}
    out.mkdir(parents=True, exist_ok=True)
    record_files.write_json(
        out / TRANSFER, TRANSFER_SCHEMA, {"rows": rows, "words": loaded.words, "mode": chosen.mode, **terms}
    )


def program_record(layout: WeightLayout) -> dict[str, str]:
    """Record of the program whose weights a model started from."""
    return {"name": layout.name, "licence": layout.licence_of_weights, "citation": layout.citation}


def source_record(out: Path) -> ModelOrigin:
    """The same, for the record of a model that starts so, as a training has written it; empty without a source."""
    if not (out / TRANSFER).is_file():
        return ModelOrigin()
    source = record_files.read_json(out / TRANSFER, TRANSFER_SCHEMA).get("source")
    return {"weights_source": source} if source else ModelOrigin()


def read_origins(out: Path) -> tuple[TensorOrigin, ...]:
    """The origins of the tensors of a training that has begun. Raises IntegrityError for a record that is none."""
    rows = record_files.read_json(out / TRANSFER, TRANSFER_SCHEMA)["rows"]
    try:
        return tuple(TensorOrigin(**{**row, "shape": tuple(row["shape"])}) for row in rows)
    except TypeError as error:
        raise IntegrityError(f"holds no origins of tensors ({error})", str(out / TRANSFER), "Train again") from error


def transfer_statement(out: Path) -> str:
    """Sentence for a report on what a training started from; empty where it started from nothing."""
    if not (out / TRANSFER).is_file():
        return ""
    rows = read_origins(out)
    mode = record_files.read_json(out / TRANSFER, TRANSFER_SCHEMA)["mode"]
    encoder = [row for row in rows if row.group == ENCODER and row.shape]
    hows = Counter(row.how for row in encoder if row.how != FRESH)
    counts = ", ".join(f"{count} {how}" for how, count in hows.most_common())
    moved = sum(row.trained for row in rows if row.shape)
    return (
        f"{hows.total()} of the encoder's {len(encoder)} tensors came from other weights ({counts}); mode {mode}, "
        f"{moved} of all {sum(bool(row.shape) for row in rows)} tensors were trained"
    )
