"""Sets of classes beside those of MAPIE 1.6, from the same probabilities of calibration and new cases.

    python -m venv peer && peer/bin/pip install -r bench/peers/mapie.txt && PYTHONPATH=src peer/bin/python bench/sets.py

MAPIE draws random numbers for the calibration scores of APS and RAPS; both sides get the same. Its RAPS chooses the
penalty on a part of the calibration cases: ours takes that choice and the threshold that followed.
"""

from __future__ import annotations

import numpy as np
from mapie.classification import SplitConformalClassifier
from sklearn.base import BaseEstimator, ClassifierMixin

from isocenter.evaluation import conformal
from isocenter.evaluation.conformal import NEVER_EMPTY

CASES, CLASSES, LEVEL = 2000, 5, 0.9


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its probabilities."""

    def __init__(self) -> None:
        self.classes_ = np.arange(CLASSES)

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return np.argmax(inputs, axis=1)

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        return inputs

    def __sklearn_is_fitted__(self) -> bool:
        return True


def main() -> None:
    print("method  seed  sets that differ  classes a set (MAPIE, ours)")
    for method in ("lac", "aps", "raps"):
        for seed in range(3):
            theirs, ours = both(method, seed)
            print(method, seed, int((theirs != ours).any(axis=1).sum()), theirs.sum(1).mean(), ours.sum(1).mean())


def both(method: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(cases, classes) which classes are in MAPIE's and in our sets of half of the cases."""
    random, half = np.random.default_rng(seed), CASES // 2
    stated = random.dirichlet(np.full(CLASSES, 0.5), CASES)
    true = (random.random((CASES, 1)) > np.cumsum(stated**0.5, axis=1) / (stated**0.5).sum(1, keepdims=True)).sum(1)
    peer = SplitConformalClassifier(Given(), LEVEL, conformity_score=method, prefit=True, random_state=seed)
    peer.conformalize(stated[:half], true[:half])
    options = {} if method == "lac" else {"include_last_label": False}
    theirs = peer.predict_set(stated[half:], conformity_score_params=options)[1][:, :, 0]
    learnt = peer._mapie_classifier.conformity_score_function_  # its threshold and its choice are not public
    if method == "raps":
        scores, threshold = (
            conformal.class_scores(stated, "raps", raps=(learnt.lambda_star, learnt.k_star)),
            learnt.quantiles_[0],
        )
    else:
        draws = np.random.RandomState(seed).uniform(size=half)
        own = conformal.class_scores(stated[:half], method, draws=None if method == "lac" else draws)
        threshold, _ = conformal.conformal_threshold(own[np.arange(half), true[:half]], LEVEL)
        scores = conformal.class_scores(stated, method)
    return theirs, conformal.prediction_sets(scores[half:], threshold, never_empty=method in NEVER_EMPTY)


if __name__ == "__main__":
    main()
