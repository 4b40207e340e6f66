"""Scores of a model to which somebody points: the references point, with a box, then click after click."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from hilum.errors import DatasetError
from hilum.evaluation import Metric, Metrics, Seed, Table, case_tables, mask_overlap
from hilum.lazy import pandas as pd
from hilum.report import Figure
from hilum.report.figures import charts, slice_figures
from hilum.tasks import properties
from hilum.tasks.prompted import sampled_prompts
from hilum.tasks.segmentation.question import Segmentation
from hilum.tasks.shared import reference_labels
from hilum.values import Array, Case, Image, Label, Prediction, Prompts, Row, bounding_boxes

OBJECT = "object"
# Clicks after which an answer is scored, and objects of a case that are pointed at, of more some always the same.
CLICKS = (1, 3, 5)
MOST_OBJECTS = 8
# By how much of its sides, and by how many voxels at least, a box is larger than what it holds.
MARGIN = 0.05
LEAST_MARGIN = 1.0
BY_BOX = "dice_box"
BY_CLICKS = tuple(f"dice_{count}" for count in CLICKS)
WORDS = {BY_BOX: "with a box", **{f"dice_{count}": f"after {count} click{'s' * (count > 1)}" for count in CLICKS}}
NAMED = tuple(Metric(name, f"Dice {words}", worst=0.0) for name, words in WORDS.items())
METRICS = Metrics(NAMED, label_word="structure", of_case=BY_CLICKS[-1])


class PromptedScoring(Segmentation):
    """The scores of what a person points at; the fields are those of a segmentation."""

    def own_labels(self, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
        """The cases as they are: a label is what somebody points at."""
        return list(cases), []

    def predict_sampled_prompts(self, ask: Callable[[Prompts], Prediction], case: Case) -> Prediction:
        """Each object by a box, then by one click after the other where the answer is most wrong.

        The result's values are Dice, its label map shows the objects as they are after the last click. DatasetError for
        a case without an object.
        """
        numbers, labels = self.reference_objects(case)
        if not labels:
            raise DatasetError("its reference shows no object to point at", case.id, "Leave the case out")
        found = np.zeros(numbers.shape, dtype=np.uint16)
        scores = dict[str, float]()
        order = np.random.default_rng(0).permutation(len(labels))[:MOST_OBJECTS]
        for label in (labels[place] for place in sorted(order)):
            mask = numbers == label.value
            for metric, answer in _answers(ask, mask):
                scores[f"{label.name}/{label.value}/{metric}"] = mask_overlap.dice(answer, mask)
            found[answer] = label.value
        return Prediction(properties.first_image(case).geometry, data=found, labels=labels, values=scores)

    def reference_objects(self, case: Case) -> tuple[NDArray[np.int32], tuple[Label, ...]]:
        """(*spatial) the objects of a case, numbered from 1, and what each is called.

        GeometryError where they and the image lie on different grids.
        """
        kind = "mask" if "mask" in case.references else "instances"
        reference: Image = case.references[kind]
        reference_labels.refuse_other_image_grid(kind, reference, properties.first_image(case), case.id)
        values = reference_labels.label_values(reference.data, case.id)
        names = {one.value: one.name for one in reference.labels} if kind == "mask" else {}
        values = np.where(values == self.background, 0, values)
        # Numbered without gaps, because a file's numbers may be larger than 32 bits hold.
        present, places = np.unique(values, return_inverse=True)
        first = 0 if present[0] == 0 else 1
        called = {n: names.get(int(value), OBJECT) for n, value in enumerate(present.tolist(), first) if n}
        labels = tuple(Label(n, OBJECT if name == str(present[n - first]) else name) for n, name in called.items())
        return (places + first).reshape(values.shape).astype(np.int32), labels

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and label, the mean over its objects."""
        rows = [
            (case.id, case.patient, case_tables.figure_label(key.rsplit("/", 2)[0], OBJECT), key.rsplit("/")[-1], dice)
            for prediction, case in zip(predictions, cases, strict=True)
            for key, dice in (prediction.values or {}).items()
        ]
        table = pd.DataFrame(rows, columns=["case", "patient", "label", "metric", "dice"])
        by_metric = table.pivot_table("dice", ["case", "patient", "label"], "metric", sort=False)
        return by_metric.rename_axis(columns=None).reset_index()

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Each metric over all labels (mean of their means), then by label; patients are resampled."""
        return case_tables.mean_rows(table, dict.fromkeys((BY_CLICKS[-1], *BY_CLICKS[:-1], BY_BOX), ""), seed=seed)

    def rank(self, table: Table) -> list[str]:
        """Case ids by mean Dice after the last click."""
        return table.groupby("case")[BY_CLICKS[-1]].mean().sort_values(ascending=False, kind="stable").index.tolist()

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """Contours of what was found, and of the references where the case has some."""
        reference = self.reference_objects(case)[0] if case.references.keys() & {"mask", "instances"} else None
        shown = properties.first_image(case)
        found = np.asarray(prediction.data)
        return [slice_figures.contours(shown, reference, found, prediction.labels, title=case.id)]

    def overview(self, table: Table) -> list[Figure]:
        """Dice of the cases by what pointed."""
        groups = {METRICS.metric_named(name).words: table[name].to_numpy(float) for name in (BY_BOX, *BY_CLICKS)}
        return [charts.histogram_chart(groups, "Dice of the cases", axis="Dice")]


def _answers(ask: Callable[[Prompts], Prediction], mask: Array) -> Iterator[tuple[str, Array]]:
    """(metric, (*spatial) answer) of one object: by its box, then after clicks, each beside what was marked before."""
    places = np.argwhere(mask)
    low, high = places.min(axis=0), places.max(axis=0) + 1
    margin = np.maximum(LEAST_MARGIN, np.ceil(MARGIN * (high - low)))
    box = np.concatenate([bounding_boxes.in_letters(low - margin), bounding_boxes.in_letters(high + margin)])
    yield BY_BOX, np.asarray(ask(Prompts(boxes=[box.tolist()])).data) > 0
    answer = np.zeros_like(mask)
    clicks = list[tuple[float, ...]]()
    for count in range(1, max(CLICKS) + 1):
        if (click := sampled_prompts.next_click(mask, answer)) is not None:
            clicks.append((*bounding_boxes.in_letters(np.array(click[0])).tolist(), float(click[1])))
            answer = np.asarray(ask(Prompts(points=clicks, previous=answer if answer.any() else None)).data) > 0
        if count in CLICKS:
            yield f"dice_{count}", answer
