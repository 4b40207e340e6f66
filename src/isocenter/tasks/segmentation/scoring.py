"""The comparison of predicted label maps with masks: scores of cases, their summary, and pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.belief import Certainty, VoxelProbabilities, doubt_rows, voxel_columns, voxel_rows
from isocenter.evaluation import Seed, Table, figure_label
from isocenter.lazy import pandas as pd
from isocenter.report import Figure, figures
from isocenter.tasks.properties import stated_image
from isocenter.tasks.segmentation.reference_labels import with_own_labels
from isocenter.tasks.segmentation.scores import STRUCTURE, case_rows, only_known, summary_rows, volume_figure, volumes
from isocenter.tasks.segmentation.targets import Truth
from isocenter.tasks.shared import refuse_other_grid
from isocenter.tasks.task import Task
from isocenter.values import Case, Prediction, Row

READERS = {"between readers": "dice_between_readers", "model to readers": "dice_to_readers"}


class MaskScoring(Task):
    """The scores of a segmentation, and what reports show of them; the fields are those of `Segmentation`."""

    centrelines: tuple[str, ...]
    certainty: Certainty

    @property
    @abstractmethod
    def structures(self) -> Mapping[str, tuple[int, ...]]:
        """{name: values} of what is scored."""

    @property
    @abstractmethod
    def tolerances(self) -> Mapping[str, float]:
        """{structure: mm} of `nsd`"""

    @property
    @abstractmethod
    def truth(self) -> Truth:
        """The reading of masks."""

    @property
    @abstractmethod
    def probable(self) -> VoxelProbabilities:
        """What makes probabilities of outputs."""

    def own_labels(self, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        """The cases with masks under the model's numbers, and sentences on labels that one side lacks."""
        silent = {self.truth.background, self.truth.ignore or 0}
        return with_own_labels(cases, self.labels, self.structures, silent)

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and structure that is known in it, on the reference's own grid.

        Raises GeometryError for a prediction on another grid.
        """
        rows = [row for pair in zip(predictions, cases, strict=True) for row in self._case_rows(*pair)]
        return pd.DataFrame(rows)

    def _case_rows(self, prediction: Prediction, case: Case) -> list[dict[str, Any]]:
        reference = case.references["mask"]
        refuse_other_grid(prediction, reference, case.id)
        predicted, drawn = np.asarray(prediction.data), self.truth.of(case)
        known = {name: own for place, (name, own) in enumerate(self.structures.items()) if drawn.knows(place)}
        rows = case_rows(
            predicted,
            drawn.values,
            known,
            reference.geometry,
            self.tolerances,
            self.centrelines,
            known=drawn.voxels,
            surfaces=self.truth.sparse is None,
        )
        of_voxels = voxel_columns(prediction, drawn, self.structures, self.probable, self.certainty.covers_from)
        by_readers = self.truth.reader_agreement(predicted, case, tuple(self.structures))
        named = {"case": case.id, "patient": case.patient}
        return [
            {**named, **row, **by_readers.get(name, {}), **of_voxels[name], "label": figure_label(name, STRUCTURE)}
            for name, row in zip(known, rows, strict=True)
        ]

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Each metric over all labels (mean of their means), then by label; patients are resampled."""
        of_voxels = [only_known(row, table) for row in voxel_rows(table, seed=seed)]
        tolerances = {figure_label(name, STRUCTURE): own for name, own in self.tolerances.items()}
        return [*summary_rows(table, tolerances, seed=seed), *of_voxels, *doubt_rows(table, seed=seed)]

    def rank(self, table: Table) -> list[str]:
        """Case ids by mean Dice; a case without any structure counts as 1."""
        dice = table.groupby("case")["dice"].mean().fillna(1.0)
        return dice.sort_values(ascending=False, kind="stable").index.tolist()

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """Contours of the prediction, and of the reference where the case has one: of the structures that it knows."""
        predicted = np.asarray(prediction.data)
        if "mask" not in case.references:
            return [figures.contours(stated_image(case), None, predicted, self.labels, title=case.id)]
        drawn = self.truth.of(case)
        if drawn.known is not None:
            known = [own for place, own in enumerate(self.structures.values()) if drawn.knows(place)]
            predicted = np.where(np.isin(predicted, [value for own in known for value in own]), predicted, 0)
        return [figures.contours(stated_image(case), drawn.values, predicted, self.labels, title=case.id)]

    def overview(self, table: Table) -> list[Figure]:
        """Dice of the cases, agreement of volumes, and where several people drew, how far readers agree."""
        labels = [figure_label(name, STRUCTURE) for name in self.structures]
        groups = {label: table.loc[table["label"] == label, "dice"].to_numpy(float) for label in labels}
        drawn = [figures.histogram(groups, "Dice of the cases", axis="Dice")]
        drawn += [volume_figure(volume) for volume in volumes(table)]
        if not set(READERS.values()) <= set(table):
            return drawn
        agreements = {words: table[column].dropna().to_numpy(float) for words, column in READERS.items()}
        caption = "Mean Dice of each two readers, and of the model to each of them."
        return [*drawn, figures.histogram(agreements, "Readers and model", axis="Dice", caption=caption)]
