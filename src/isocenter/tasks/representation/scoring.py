"""The scores of a representation: how many directions its features use."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isocenter.evaluation import FEATURE, Metric, Metrics, Seed, Table, effective_rank
from isocenter.lazy import pandas as pd
from isocenter.report import Figure, figures
from isocenter.tasks.properties import stated_image
from isocenter.tasks.representation.answering import RepresentationAnswering
from isocenter.values import Case, Estimate, Floats, Prediction, Row

RANK, LOSS = "rank", "minus_loss"
METRICS = Metrics(
    (
        Metric(RANK, "Effective rank of the features"),
        Metric(LOSS, "Minus the loss of the objective", may_judge=False),
    )
)
NO_INTERVAL = "none: patients drawn twice would lower a rank"


def features_of(table: Table) -> Floats:
    """(cases, features) of a table of cases."""
    names = [name for name in table if str(name).startswith(FEATURE)]
    return table[names].to_numpy(dtype=np.float64)


class RepresentationScoring(RepresentationAnswering):
    """Scores and pictures of a representation; the fields are those of `Representation`."""

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case, with its features: nothing says whether they are right."""
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            features = {f"{FEATURE}{name}": value for name, value in (prediction.values or {}).items()}
            rows.append({"case": case.id, "patient": case.patient, "label": "all", **features})
        return pd.DataFrame(rows)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """The effective rank of the features of all cases."""
        features, people = features_of(table), len(set(table["patient"]))
        estimate = Estimate(effective_rank(features), n=len(features), patients=people, method=NO_INTERVAL)
        return [Row(RANK, "all", estimate)]

    def rank(self, table: Table) -> list[str]:
        """Case ids from the most usual features to the oddest: by the distance from the mean."""
        features = features_of(table)
        distances = np.linalg.norm(features - features.mean(axis=0), axis=1)
        return [str(table["case"].iloc[place]) for place in np.argsort(distances, kind="stable")]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image."""
        caption = f"{len(prediction.values or {})} features"
        return [figures.contours(stated_image(case), None, None, (), title=case.id, caption=caption)]

    def overview(self, table: Table) -> list[Figure]:
        """The cases along the two directions in which their features differ most."""
        features = features_of(table)
        apart = features - features.mean(axis=0)
        if min(features.shape) < 2:
            return []
        across, up = (apart @ np.linalg.svd(apart, full_matrices=False)[2][:2].T).T
        axes = ("first principal component", "second principal component")
        return [figures.scatter(across, up, "Features of the cases", axes=axes)]
