"""The answers of several tasks: each part answers by itself, and the results stand side by side.

A copy of this file travels with a packaged model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

from isocenter.tasks.multitask.slabs import dense_slabs, joined_prediction, mean, read_by_each
from isocenter.tasks.parts import head_of
from isocenter.tasks.properties import own_outputs, rows_in
from isocenter.tasks.shared import Shares
from isocenter.tasks.task import Task
from isocenter.values import Array, Finding, Geometry, Measurements, Merge, Prediction, Slabs


class PartAnswering(Task):
    """The answers of tasks that share a network: each part answers by itself."""

    @property
    def merge(self) -> Merge:
        """Windows are merged as the first part has it."""
        return self._first.merge

    @property
    def probability_heads(self) -> tuple[str, ...]:
        """The heads of all parts whose probabilities are averaged."""
        return tuple(head_of(name, key) for name, part in self.parts.items() for key in part.probability_heads)

    @property
    def bytes_per_voxel(self) -> int | None:
        """Memory of the part that needs most."""
        return max(filter(None, (part.bytes_per_voxel for part in self.parts.values())), default=None)

    @property
    def crossed(self) -> Mapping[str, int]:
        """{head: folds} whose sets and intervals the parts combine."""
        return {head_of(name, key): folds for name, part in self.parts.items() for key, folds in part.crossed.items()}

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """The parts, and the targets of each, as "part:target"."""
        targets = ((name, *(f"{name}:{own}" for own in part.saliency_targets)) for name, part in self.parts.items())
        return tuple(target for own in targets for target in own)

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """Each part's own average of its heads."""
        return self._each(
            outputs[0], lambda name, part: part.average([self._own(name, one) for one in outputs], shares)
        )

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Each part's own probabilities, under the heads' whole names."""
        return self._each(arrays, lambda name, part: part.probabilities(self._own(name, arrays)))

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Each part decodes its own; those with an output for every voxel read each slab once, as it comes."""
        dense = [name for name, part in self.parts.items() if is_dense(part)]
        vectors: list[Mapping[str, Array]] = []
        decoders = [partial(self._decoded, name, geometry) for name in dense]
        maps = read_by_each(dense_slabs(slabs, vectors), decoders)
        parts = dict(zip(dense, maps, strict=True))
        for name, part in self.parts.items():
            if name not in dense:
                arrays_of_part = mean([self._own(name, arrays) for arrays in vectors])
                parts[name] = part.decode([((), arrays_of_part)], geometry)
        return joined_prediction(geometry, {name: parts[name] for name in self.parts})

    def _decoded(self, name: str, geometry: Geometry, slabs: Slabs) -> Prediction:
        """A part's own result of slabs with the outputs of all parts."""
        slabs_of_part = ((region, self._own(name, arrays)) for region, arrays in slabs)
        return self.parts[name].decode(slabs_of_part, geometry)

    def outputs(self, prediction: Prediction) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        """The columns of all parts side by side; of several rows each repeats the other parts' columns."""
        rows_of_parts = {name: rows_in(part.outputs(prediction.parts[name])) for name, part in self.parts.items()}
        columns = [
            column for rows in rows_of_parts.values() for column in dict.fromkeys(key for row in rows for key in row)
        ]
        rows: list[dict[str, Any]] = [{}]
        for name, rows_of_part in rows_of_parts.items():
            renamed = [{_column(key, name, columns): value for key, value in row.items()} for row in rows_of_part]
            rows = [{**before, **row} for before in rows for row in renamed]
        return rows[0] if len(rows) == 1 else rows

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """The findings of all parts, one after the other; the group of several that are one answer is their part.

        The group of a structure is its part and its name.
        """
        rows, findings = iter(measured), list[Finding]()
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
    def valued_findings(self) -> tuple[str, ...]:
        """The names of findings with a number, of all parts."""
        return tuple(dict.fromkeys(name for part in self.parts.values() for name in part.valued_findings))

    @property
    def _first(self) -> Task:
        return next(iter(self.parts.values()))

    def _own(self, name: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
        return own_outputs(name, self.parts[name], outputs)

    def _each(
        self, arrays: Mapping[str, Any], result_of: Callable[[str, Task], Mapping[str, Array]]
    ) -> dict[str, Array]:
        """The result of `result_of` for each part that these are outputs of, under the heads' whole names."""
        return {
            head_of(name, key): array
            for name, part in self.parts.items()
            if self._own(name, arrays)
            for key, array in result_of(name, part).items()
        }


def is_dense(part: Task) -> bool:
    """Whether a part has an output for every voxel."""
    return any(head.is_dense for head in part.heads.values())


def _column(key: str, name: str, columns: Sequence[str]) -> str:
    """A column that several parts have is called by its part."""
    return f"{name}_{key}" if columns.count(key) > 1 else key
