"""The scores of an enhancement, and what reports show of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hilum.evaluation import ALL, Metric, Metrics, Seed, Table, case_tables, image_fidelity
from hilum.evaluation.image_fidelity import FIDELITY_METRICS
from hilum.evaluation.inserted_spheres import RECOVERY_METRICS
from hilum.lazy import pandas as pd
from hilum.report import Figure
from hilum.report.figures import charts, enhancement_figures, slice_figures
from hilum.tasks import properties
from hilum.tasks.enhancement import answering
from hilum.tasks.enhancement.answering import ERROR, TARGET, ImageAnswering
from hilum.values import Array, Case, Floats, Prediction, Row
from hilum.values.table_cells import PlainCell

PSNR = "psnr"
SNR = "snr"
METRICS = Metrics(
    (*FIDELITY_METRICS, *RECOVERY_METRICS, Metric(SNR, "Signal-to-noise ratio", unit="dB", may_judge=False)),
    label_word="channel",
).mark_audited(audited=("psnr",), calibration="coverage")


class ImageScoring(ImageAnswering):
    """The scores of an enhancement; the fields are those of `Enhancement`."""

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case."""
        return pd.DataFrame([self._row(one, case) for one, case in zip(predictions, cases, strict=True)])

    def _row(self, prediction: Prediction, case: Case) -> dict[str, PlainCell]:
        target = answering.known_target(case)
        image = answering.enhanced_image(prediction)
        source = properties.first_image(case).data[: len(target)] if self.unit == "input" else None
        error = answering.map_values(prediction, ERROR) if ERROR in prediction.maps else None
        figures = image_fidelity.fidelity_figures(image, target, prediction.geometry, source=source, error=error)
        row = {"case": case.id, "patient": case.patient, "label": ALL}
        return {**row, **figures, SNR: signal_ratio(image, target)}

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Each metric over all cases; patients are resampled."""
        return case_tables.mean_rows(table, {one.name: one.unit for one in METRICS if one.name in table}, seed=seed)

    def rank(self, table: Table) -> list[str]:
        """Cases by their PSNR."""
        ordered = table.sort_values(PSNR, ascending=False, kind="stable", na_position="last")
        return ordered["case"].astype(str).tolist()

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image, what was made of it and the change, then what it should become and the error."""
        given = properties.first_image(case)
        made = replace(given, pixels=answering.enhanced_image(prediction), channels=self.channels, facts={})
        title = case.id
        target = case.references.get(TARGET)
        if self.unit == "input":
            stages = [("image", given), ("result", made)]
            pictures = [enhancement_figures.stages_with_residual(stages, f"{title}: change")]
        else:
            pictures = [slice_figures.contours(given, None, None, (), title=f"{title}: image")]
        if target is not None:
            stages = [("target", target), ("result", made)]
            pictures.append(enhancement_figures.stages_with_residual(stages, f"{title}: error"))
        return pictures

    def overview(self, table: Table) -> list[Figure]:
        """PSNR of the inputs and of the results."""
        columns = {"input": "psnr_input", "result": PSNR}
        groups = {words: table[one].dropna().to_numpy(float) for words, one in columns.items() if one in table}
        return [charts.histogram_chart(groups, "PSNR of the cases", axis="dB")]


def _errors(image: Array, target: Array) -> tuple[Floats, float]:
    """(known,) true numbers, and the mean squared error of an image there."""
    known = np.isfinite(target) & np.isfinite(image)
    true = target[known].astype(np.float64)
    return true, float(np.mean((image[known] - true) ** 2)) if true.size else math.nan


def signal_ratio(image: Array, target: Array) -> float:
    """The variance of the target over the mean squared error, in dB; NaN of a constant target."""
    true, error = _errors(image, target)
    variance = float(true.var()) if true.size else 0.0
    return 10 * math.log10(variance / max(error, np.finfo(float).tiny)) if variance else math.nan
