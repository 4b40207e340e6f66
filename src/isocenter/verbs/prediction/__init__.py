"""The parts of `predict`: one case, where cases are computed, regions, result files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.prediction.case import Asked, Done, noted
    from isocenter.verbs.prediction.result_files import AUTO, FORMATS, PROGRAM, Wanted, algorithm_of, with_own_names
    from isocenter.verbs.prediction.where import Here, Predictor, There, in_full, loaded_model
    from isocenter.verbs.prediction.withheld import gate_columns

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
