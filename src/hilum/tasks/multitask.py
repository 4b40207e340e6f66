"""Multi-task: a task made of tasks, each with heads of its own on one backbone.

Caruana, Machine Learning 1997, doi:10.1023/A:1007379606734. Every part is a kind of problem as it is by itself; this
file has only what follows from their sharing a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np

from hilum import errors
from hilum.errors import DatasetError, PlanError
from hilum.evaluation import CaseValues, Metric, Metrics, Seed, Table
from hilum.lazy import pandas as pd
from hilum.lazy import torch
from hilum.report import Figure
from hilum.tasks import properties, task_settings
from hilum.tasks.shared import saliency
from hilum.tasks.shared.averages import Shares
from hilum.tasks.shared.grid_and_length import COARSEST
from hilum.tasks.task import BlindGuess, Columns, Outputs, Task
from hilum.tasks.task_settings import DOT
from hilum.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Finding,
    Fingerprint,
    Geometry,
    Head,
    Label,
    Measurements,
    Merge,
    Prediction,
    Row,
    Setting,
    Slabs,
    Split,
    Target,
)
from hilum.values.prediction import KNOWN, SeveralHeads
from hilum.values.table_cells import PlainCell

if TYPE_CHECKING:
    from torch import Tensor


# The answers of several tasks: each part answers by itself, and the results stand side by side.
#
# A copy of this part travels with a packaged model.


T = TypeVar("T")


class PartAnswering(Task):
    """The answers of tasks that share a network: each part answers by itself."""

    @property
    def merge(self) -> Merge:
        """Windows are merged as the first part has it."""
        return self._first.merge

    @property
    def probability_heads(self) -> tuple[str, ...]:
        """The heads of all parts whose probabilities are averaged."""
        return tuple(
            properties.full_head_name(name, key) for name, part in self.parts.items() for key in part.probability_heads
        )

    @property
    def bytes_per_voxel(self) -> int | None:
        """Memory of the part that needs most."""
        return max(filter(None, (part.bytes_per_voxel for part in self.parts.values())), default=None)

    @property
    def folds_by_head(self) -> Mapping[str, int]:
        """{head: folds} whose sets and intervals the parts combine."""
        return {
            properties.full_head_name(name, key): folds
            for name, part in self.parts.items()
            for key, folds in part.folds_by_head.items()
        }

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The parts, and the targets of each, as "part:target"."""
        targets = ((name, *(f"{name}:{own}" for own in part.saliency_targets)) for name, part in self.parts.items())
        return tuple(target for own in targets for target in own)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """Each part's own average of its heads."""
        return self._map_parts(
            outputs[0], lambda name, part: part.average([self._own_outputs(name, one) for one in outputs], shares)
        )

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Each part's own probabilities, under the heads' whole names."""
        return self._map_parts(arrays, lambda name, part: part.probabilities(self._own_outputs(name, arrays)))

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Each part decodes its own; those with an output for every voxel read each slab once, as it comes."""
        dense = [name for name, part in self.parts.items() if is_dense_part(part)]
        vectors: list[Mapping[str, Array]] = []
        decoders = [partial(self._decode_part, name, geometry) for name in dense]
        maps = properties.feed_readers(properties.dense_slabs(slabs, vectors), decoders)
        parts = dict(zip(dense, maps, strict=True))
        for name, part in self.parts.items():
            if name not in dense:
                arrays_of_part = properties.mean_vector_outputs([self._own_outputs(name, arrays) for arrays in vectors])
                parts[name] = part.decode([((), arrays_of_part)], geometry)
        return properties.joined_prediction(geometry, {name: parts[name] for name in self.parts})

    def _decode_part(self, name: str, geometry: Geometry, slabs: Slabs) -> Prediction:
        """A part's own result of slabs with the outputs of all parts."""
        slabs_of_part = ((region, self._own_outputs(name, arrays)) for region, arrays in slabs)
        return self.parts[name].decode(slabs_of_part, geometry)

    def outputs(self, prediction: Prediction) -> Columns:
        """The columns of all parts side by side; of several rows each repeats the other parts' columns."""
        rows_of_parts = {
            name: properties.output_rows(part.outputs(prediction.parts[name])) for name, part in self.parts.items()
        }
        columns = [
            column for rows in rows_of_parts.values() for column in dict.fromkeys(key for row in rows for key in row)
        ]
        rows: list[dict[str, PlainCell]] = [{}]
        for name, rows_of_part in rows_of_parts.items():
            renamed = [{_column(key, name, columns): value for key, value in row.items()} for row in rows_of_part]
            rows = [{**before, **row} for before in rows for row in renamed]
        return rows[0] if len(rows) == 1 else rows

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """The findings of all parts, one after the other; the group of several that are one answer is their part.

        The group of a structure is its part and its name.
        """
        rows = iter(measured)
        findings = list[Finding]()
        for name, part in self.parts.items():
            of_part = prediction.parts[name]
            # Those of a further part have its name before the label.
            mine = [] if of_part.data is None else list(islice(rows, len(of_part.labels)))
            mine = [{**row, "label": str(row["label"]).removeprefix(f"{name}: ")} for row in mine]
            for finding in part.results(of_part, mine):
                group = name if of_part.data is None else f"{name}: {finding.group}"
                findings.append(replace(finding, group=group) if finding.group else finding)
        return findings

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """The names of findings with a probability, of all parts."""
        return tuple(name for part in self.parts.values() for name in part.probable_findings)

    @property
    def grades(self) -> tuple[str, ...]:
        """The grades of its parts."""
        return tuple(name for part in self.parts.values() for name in part.grades)

    @property
    def valued_findings(self) -> Mapping[str, str]:
        """The names of findings with a number, of all parts, with their units."""
        return {name: unit for part in self.parts.values() for name, unit in part.valued_findings.items()}

    @property
    def _first(self) -> Task:
        return next(iter(self.parts.values()))

    def _own_outputs(self, name: str, outputs: Mapping[str, T]) -> dict[str, T]:
        return properties.own_outputs(name, self.parts[name], outputs)

    def _map_parts(
        self, arrays: Mapping[str, Array], result_of: Callable[[str, Task], Mapping[str, Array]]
    ) -> dict[str, Array]:
        """The result of `result_of` for each part that these are outputs of, under the heads' whole names."""
        return {
            properties.full_head_name(name, key): array
            for name, part in self.parts.items()
            if self._own_outputs(name, arrays)
            for key, array in result_of(name, part).items()
        }


def is_dense_part(part: Task) -> bool:
    """Whether a part has an output for every voxel."""
    return any(head.is_dense for head in part.heads.values())


def _column(key: str, name: str, columns: Sequence[str]) -> str:
    """A column that several parts have is called by its part."""
    return f"{name}_{key}" if columns.count(key) > 1 else key


# Columns that the rows of all parts have.
COMMON = ("case", "patient", "split", "label")
SEPARATOR = "."
LABEL_SEPARATOR = ": "


class PartScoring(PartAnswering):
    """The scores of tasks that share a network."""

    @property
    def primaries(self) -> frozenset[str]:
        """Primary metrics of all parts."""
        return frozenset().union(*(part.primaries for part in self.parts.values()))

    def own_labels(self, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        """The cases with references under the numbers of the parts, and sentences on labels that one side lacks."""
        by_id = {case.id: case for case in cases}
        sentences = list[str]()
        for part in self.parts.values():
            relabelled, more = part.own_labels([one for one in by_id.values() if part.needs <= set(one.references)])
            by_id |= {case.id: case for case in relabelled}
            sentences += more
        return list(by_id.values()), sentences

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """The rows of all parts, of the cases that each is known of; its name stands before its labels and columns."""
        tables = [
            prefix_part_table(name, part.score([prediction.parts[name]], [case]))
            for prediction, case in zip(predictions, cases, strict=True)
            for name, part in self.parts.items()
            if part.needs <= set(case.references)
        ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame([])

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """The estimates of each part, whose name stands before the label."""
        return [
            replace(row, label=f"{name}{LABEL_SEPARATOR}{row.label}")
            for name, own in part_tables(self, table).items()
            for row in self.parts[name].summary(own, seed=seed)
        ]

    def rank(self, table: Table) -> list[str]:
        """Case ids by the mean of the places that a case has among those of each part, as a share of them."""
        places: dict[str, list[float]] = {}
        for name, part_table in part_tables(self, table).items():
            ranked = self.parts[name].rank(part_table)
            for index, case in enumerate(ranked):
                places.setdefault(case, []).append((index + 0.5) / len(ranked))
        return sorted(places, key=lambda case: float(np.mean(places[case])))

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The pictures of all parts, one after the other."""
        return [figure for name, part in self.parts.items() for figure in part.figures(prediction.parts[name], case)]

    def overview(self, table: Table) -> list[Figure]:
        """The charts of each part, whose name stands before the title."""
        return [
            replace(figure, title=f"{name[0].upper()}{name[1:]}: {figure.title}")
            for name, own in part_tables(self, table).items()
            for figure in self.parts[name].overview(own)
        ]

    def case_values(self, table: Table) -> list[CaseValues]:
        """Values of which the figures of each part are made, whose name stands before the label."""
        return [
            replace(values, label=f"{name}{LABEL_SEPARATOR}{values.label}")
            for name, own in part_tables(self, table).items()
            for values in self.parts[name].case_values(own)
        ]

    def guess(self, table: Table) -> BlindGuess | None:
        """The guess of each part that has one, of its own rows; the metrics are those of all of them."""
        guesses = {
            name: guess for name, own in part_tables(self, table).items() if (guess := self.parts[name].guess(own))
        }
        if not guesses:
            return None
        words = {name: own for name, guess in guesses.items() for own in guess.words.values()}
        metrics = tuple(dict.fromkeys(metric for guess in guesses.values() for metric in guess.metrics))
        joined = pd.concat([prefix_part_table(name, guess.table) for name, guess in guesses.items()], ignore_index=True)
        return BlindGuess(joined, words, metrics)


def part_tables(task: Task, table: Table) -> dict[str, Table]:
    """{part: its rows, with its own labels and columns} of the parts that have any; "" of a task without parts."""
    tables = {name: table_of_part(name, table) if name else table for name in properties.leaf_tasks(task)}
    return {name: rows for name, rows in tables.items() if len(rows) or not name}


def prefix_part_table(name: str, table: Table) -> Table:
    """A part's table whose labels and columns begin with its name: no two parts have any in common."""
    renamed = table.rename(columns={key: f"{name}{SEPARATOR}{key}" for key in table if key not in COMMON})
    return renamed.assign(label=[f"{name}{LABEL_SEPARATOR}{label}" for label in table["label"]])


def table_of_part(name: str, table: Table) -> Table:
    """The inverse: the rows of a part as it made them."""
    rows = table[[str(label).startswith(f"{name}{LABEL_SEPARATOR}") for label in table["label"]]]
    columns = [key for key in table if key in COMMON or str(key).startswith(f"{name}{SEPARATOR}")]
    renamed = rows[columns].rename(columns={key: str(key).removeprefix(f"{name}{SEPARATOR}") for key in columns})
    labels = [str(label).removeprefix(f"{name}{LABEL_SEPARATOR}") for label in rows["label"]]
    return renamed.assign(label=labels).infer_objects().reset_index(drop=True)


# Between the names of kinds.
SIGN = "+"
SELECTED = "mean_of_parts"
KENDALL = "arXiv:1705.07115"
CARUANA = "doi:10.1023/A:1007379606734"
# Of the logarithms of variances: a loss counts at most e^5 times, and at least 1 / e^5 times, as much as it is.
LARGEST_LOG = 5.0


def _weights_from(weights: Any) -> dict[str, float] | None:
    """{part: by what its loss is multiplied}, or None; PlanError for what is no weight."""
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        raise PlanError(
            f"{weights!r} are no weights of parts", "task.loss_weights", "Give one number above 0 for each part"
        )
    for name, value in weights.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            remedy = "Give a number above 0, or leave the part out"
            raise PlanError(f"{value!r} for {name}", "task.loss_weights", remedy)
    return {str(name): float(value) for name, value in weights.items()}


@dataclass(frozen=True, kw_only=True)
class LossWeighting:
    """Weighting of the losses of several parts.

    weighting:    "uncertainty" learns it with the weights of the network, "fixed" keeps `loss_weights`
    loss_weights: {part: by what its loss is multiplied}
    """

    weighting: Literal["uncertainty", "fixed"] = "uncertainty"
    loss_weights: Annotated[Mapping[str, float] | None, Setting(read=_weights_from)] = None


@dataclass(frozen=True)
class Joined(LossWeighting):
    """Kinds of problem that share a network, in the order of their names."""

    kinds: Annotated[tuple[type[Task], ...], Setting(is_kept=False)]
    by_name: ClassVar[bool] = False

    @classmethod
    def of_kinds(cls, kinds: Sequence[type[Task]]) -> Joined:
        """Make a task of at least two different kinds; PlanError where one is named twice."""
        ordered = tuple(sorted(kinds, key=lambda kind: kind.name))
        if len({kind.name for kind in ordered}) < len(ordered) or len(ordered) < 2:
            named = SIGN.join(kind.name for kind in ordered)
            raise PlanError(f"{named} is not a set of different kinds", "task.name", "Name each kind once")
        return cls(ordered)

    @property
    def name(self) -> str:
        """The names of the kinds, joined with "+"."""
        return SIGN.join(kind.name for kind in self.kinds)

    @property
    def parts(self) -> Mapping[str, type[Task]]:
        """{name: kind}"""
        return {kind.name: kind for kind in self.kinds}

    @property
    def needs(self) -> frozenset[str]:
        """The kinds of reference that its parts need."""
        return frozenset().union(*(kind.needs for kind in self.kinds))

    @property
    def tuned_on(self) -> tuple[Split, ...]:
        """The parts of the cases that decide for the kind that needs most of them."""
        return longest_tuning(self.kinds)

    @property
    def alternatives(self) -> tuple[frozenset[str], ...]:
        """References that each kind needs: a case may lack those of a part."""
        return tuple(kind.needs for kind in self.kinds)

    @property
    def metrics(self) -> Metrics:
        """The metrics of the parts."""
        return joined_metrics(self.kinds)

    def settings_for(self, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The settings of every part, and how their losses are weighed; DatasetError where a part cannot be taught."""
        return settings_for(self.kinds, dataset, fingerprint)


@dataclass(frozen=True)
class Multitask(LossWeighting, PartScoring):
    """Several tasks on one backbone.

    parts: {kind: task}
    """

    parts: Annotated[Mapping[str, Task], Setting(is_kept=False)] = field()
    selects_by: ClassVar[str] = SELECTED

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Always raises NotImplementedError: `Joined` states the settings of kinds before there are tasks."""
        raise NotImplementedError("the kinds are joined before they have settings")

    def check_and_fill(self) -> Multitask:
        """Put parts that have an output for every voxel first; PlanError for weights of other parts."""
        check_weights(self.loss_weights or {}, list(self.parts))
        ordered = dict(sorted(self.parts.items(), key=lambda item: (not is_dense_part(item[1]), item[0])))
        return replace(self, parts=ordered)

    @property
    def name(self) -> str:  # type: ignore[override]  # of other tasks a constant
        """The names of the parts, joined with "+"."""
        return SIGN.join(sorted(self.parts))

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]  # of other tasks a constant
        """The kinds of reference that its parts need."""
        return frozenset().union(*(part.needs for part in self.parts.values()))

    @property
    def tuned_on(self) -> tuple[Split, ...]:  # type: ignore[override]  # of other tasks a constant
        """The parts of the cases that decide for the part that needs most of them."""
        return longest_tuning(self.parts.values())

    @property
    def alternatives(self) -> tuple[frozenset[str], ...]:  # type: ignore[override]  # of other tasks a constant
        """References that each part needs: a case may lack those of a part."""
        return tuple(part.needs for part in self.parts.values())

    @property
    def metrics(self) -> Metrics:  # type: ignore[override]  # of other tasks a constant
        """The metrics of the parts."""
        return joined_metrics(self.parts.values())

    @property
    def heads(self) -> Mapping[str, Head]:
        """The heads of all parts, as <kind>_<head>."""
        return {
            properties.full_head_name(name, key): head
            for name, part in self.parts.items()
            for key, head in part.heads.items()
        }

    @property
    def labels(self) -> tuple[Label, ...]:
        """Labels of the first part: of the label map, where there is one."""
        return self._first.labels

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """The channels of all parts, one after the other; None where one of them must not be mirrored."""
        order: list[int] = []
        for part in self.parts.values():
            if part.channels_when_mirrored is None:
                return None
            order += [len(order) + place for place in part.channels_when_mirrored]
        return tuple(order)

    @property
    def terms(self) -> Mapping[str, Sequence[float]]:
        """Learnt terms of the loss: with learnt weighting a variance for each part."""
        return {"log_variance": [0.0] * len(self.parts)} if self.weighting == "uncertainty" else {}

    @property
    def why_uncut(self) -> str:
        """The reasons of the parts."""
        return "; ".join(filter(None, (part.why_uncut for part in self.parts.values())))

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The decisions of the parts, brought to one each."""
        return merge_part_decisions({name: part.decisions(fingerprint) for name, part in self.parts.items()})

    def under(self, sampling: str) -> dict[str, Decision]:
        """The settings that follow for each part; PlanError for cases that are sampled otherwise than they come."""
        if sampling != "natural":
            problem = f"classes of one part cannot be sampled {sampling} without changing what the others see"
            raise PlanError(problem, "training.sampling", "Give natural")
        return {
            task_settings.part_decision_name(name, key): decision
            for name, part in self.parts.items()
            for key, decision in part.under(sampling).items()
            if key.startswith("task.")
        }

    def target(self, case: Case) -> Target:
        """{part: its target}, of the parts that the case has references of; DatasetError where it has none."""
        taught = {name: part for name, part in self.parts.items() if part.needs <= set(case.references)}
        if not taught:
            problem = f"has no reference of the kind {', '.join(sorted(self.needs))}"
            raise DatasetError(problem, case.id, "Give one of them, or leave the case out")
        targets = {name: part.target(case) for name, part in taught.items()}
        heads: Any = {name: target.head for name, target in targets.items()}
        return Target(SeveralHeads(heads), targets)

    def loss(self, outputs: Outputs, target: Any, spacing: Sequence[float] | None = None) -> Tensor:
        """The weighted sum of the parts' losses, each over the samples that have its reference.

        With learnt variances exp(-s) loss + s / 2 for each part, s being the logarithm: Kendall et al., CVPR 2018,
        arXiv:1705.07115. A part without a reference in the whole batch adds nothing, lest its variance vanish.
        """
        losses = []
        for number, (name, part) in enumerate(self.parts.items()):
            outputs_of_part = self._own_outputs(name, outputs)
            if not outputs_of_part or name not in target:
                continue
            referenced = target[KNOWN][:, list(target).index(name)]
            if not bool(referenced.any()):
                continue
            cost = part.loss(
                {key: output[referenced] for key, output in outputs_of_part.items()}, target[name][referenced], spacing
            )
            losses.append(self._weigh_loss(cost, name, number, outputs))
        if not losses:
            return torch.stack([output.float().sum() for output in outputs.values()]).sum() * 0.0
        return torch.stack(losses).sum()

    def _weigh_loss(self, cost: Tensor, name: str, number: int, outputs: Outputs) -> Tensor:
        cost = cost * (self.loss_weights or {}).get(name, 1.0)
        if self.weighting == "fixed":
            return cost
        log = outputs["log_variance"][number].clamp(-LARGEST_LOG, LARGEST_LOG)
        return torch.exp(-log) * cost + log / 2

    def quality(self, outputs: Outputs, target: Any) -> Mapping[str, Tensor]:
        """The numbers of the parts that these are outputs of, and whose reference the cases have; `KNOWN` marks these.

        Who collects the numbers of all cases may put anything in place of those that a case lacks, with 0 for the mark.
        """
        numbers_of_parts: dict[str, Tensor] = {}
        for name, part in self.parts.items():
            if name in target and (outputs_of_part := self._own_outputs(name, outputs)):
                numbers = part.quality(outputs_of_part, target[name])
                numbers = {**numbers, KNOWN: torch.ones(len(next(iter(numbers.values()))))}
                numbers_of_parts |= {f"{name}{DOT}{key}": value for key, value in numbers.items()}
        return numbers_of_parts

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """The mean of the metrics by which the parts are selected, of those that some case has a reference of."""
        metrics = []
        for name, part in self.parts.items():
            start = f"{name}{DOT}"
            of_part = {key.removeprefix(start): one for key, one in collected.items() if key.startswith(start)}
            if not of_part:
                continue
            referenced = of_part.pop(KNOWN) > 0
            if referenced.any():
                metrics.append(part.selection({key: one[referenced] for key, one in of_part.items()}))
        known_metrics = [metric for metric in metrics if not np.isnan(metric)]
        return float(np.mean(known_metrics)) if known_metrics else float("nan")

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the scalar of a part, as "part" or "part:target"; without one the sum over all parts."""
        if target is not None:
            name, _, target_of_part = self.saliency_targets[
                saliency.place_of_target(target, self.saliency_targets)
            ].partition(":")
            return self.parts[name].saliency(self._own_outputs(name, outputs), target_of_part or None)
        return torch.stack([part.saliency(self._own_outputs(name, outputs)) for name, part in self.parts.items()]).sum(
            dim=0
        )


def settings_for(kinds: Sequence[type[Task]], dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
    """The settings of every part, called <kind>.<setting>, and how their losses are weighed.

    Raises DatasetError where a part cannot be taught, or no case says anything of one.
    """
    decisions: dict[str, Decision] = {}
    for kind in kinds:
        referenced = {case.id for case in fingerprint.cases if kind.needs <= set(case.references)}
        if not referenced:
            problem = f"no training case has references of the kind {', '.join(sorted(kind.needs))}"
            where = str(dataset.root or dataset.name)
            raise DatasetError(problem, where, f"Leave {kind.name} out of --task, or add its labels")
        of_part = kind.settings_for(dataset, fingerprint.only(referenced))
        by_sampling = task_settings.task_from_settings(
            kind, {key: decision.value for key, decision in of_part.items()}
        ).under("natural")
        of_part |= {
            key.removeprefix("task."): decision for key, decision in by_sampling.items() if key.startswith("task.")
        }
        decisions |= {f"{kind.name}{DOT}{key}": decision for key, decision in of_part.items()}
    return {"weighting": _weighting(kinds, fingerprint), "loss_weights": _weights(kinds), **decisions}


def _weighting(kinds: Sequence[type[Task]], fingerprint: Fingerprint) -> Decision:
    counts = {kind.name: sum(kind.needs <= set(case.references) for case in fingerprint.cases) for kind in kinds}
    cases = ", ".join(f"{name} is known of {count}" for name, count in counts.items())
    because = (
        f"of {errors.count_phrase(len(fingerprint), 'training case')} {cases}; their losses have different units, so "
        "that how much each counts is learnt with the weights"
    )
    return Decision("uncertainty", because, KENDALL)


def _weights(kinds: Sequence[type[Task]]) -> Decision:
    weights = {kind.name: 1.0 for kind in kinds}
    return Decision(weights, "no weights of the parts were asked for")


def check_weights(weights: Mapping[str, float], parts: Sequence[str]) -> None:
    """PlanError for a weight of a part that there is not."""
    if set(weights) - set(parts):
        problem = f"{dict(weights)} are not weights of {', '.join(parts)}"
        raise PlanError(problem, "task.loss_weights", "Give one number above 0 for each part")


def longest_tuning(kinds: Iterable[type[Task] | Task]) -> tuple[Split, ...]:
    """The parts of the cases that decide after training for the kind that takes most of them."""
    return max((kind.tuned_on for kind in kinds), key=len)


def joined_metrics(kinds: Iterable[type[Task] | Task]) -> Metrics:
    """The metrics of the parts, and what selects checkpoints."""
    selecting = Metric(SELECTED, "mean over the tasks", may_judge=False)
    return Metrics((selecting, *(metric for kind in kinds for metric in kind.metrics)))


def merge_part_decisions(by_part: Mapping[str, Mapping[str, Decision]]) -> dict[str, Decision]:
    """The parts' decisions about training, brought to one each; parts with an output for every voxel come first.

    The smallest augmentation is taken, and the largest batch.
    """
    first = next(iter(by_part))
    names = " and ".join(by_part)
    common: dict[str, Decision] = {}
    for decisions in by_part.values():
        for key, decision in decisions.items():
            common[key] = _more_careful(key, common[key], decision) if key in common else decision
    if not all(COARSEST in decisions for decisions in by_part.values()):
        common.pop(COARSEST, None)
    chosen = by_part[first]["network.name"]
    primary = by_part[first]["evaluation.primary"]
    others = ", ".join(f"{own['evaluation.primary'].value} of {name}" for name, own in by_part.items() if name != first)
    selected = " and ".join(f"{own['training.selection'].value} of {name}" for name, own in by_part.items())
    return common | {
        "network.name": Decision(chosen.value, f"{first}: {chosen.because}; it serves {names} at once", CARUANA),
        "training.sampling": Decision(
            "natural", "cases sampled by the class of one part would change what the others see"
        ),
        "training.epochs": Decision(None, "no number of epochs was measured for kinds of problem that share a network"),
        "training.networks": Decision(1, "one network gets all the minutes"),
        "training.selection": Decision(SELECTED, f"it is the mean of {selected}, of the validation cases that have it"),
        "evaluation.primary": Decision(
            primary.value, f"{first}: {primary.because}; also reported: {others}", primary.source
        ),
    }


def _more_careful(key: str, mine: Decision, other: Decision) -> Decision:
    """The more careful of two decisions of different parts; the first where no rule prefers the other."""
    if mine.value == other.value:
        return mine
    if key in ("preprocessing.reduction", COARSEST):
        return min(mine, other, key=lambda decision: decision.value)
    if key == "training.batch":
        return max(mine, other, key=lambda decision: decision.value)
    if key.startswith("augmentation."):
        least = min(mine, other, key=lambda decision: abs(float(decision.value or 0)))
        return Decision(least.value, least.because, least.source)
    return mine
