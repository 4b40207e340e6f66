from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hilum.errors import HilumError
from hilum.training.recipe import Collapse

SOUND, COLLAPSED = torch.eye(32), torch.ones(32, 64)


def test_three_looks_in_a_row_at_features_that_are_all_alike_end_a_training() -> None:
    collapse = Collapse(Path("run"))
    for step in (1, 2):
        collapse.rank_of(COLLAPSED, step)
    assert collapse.is_near
    with pytest.raises(HilumError, match=r"collapsed: at 3 looks in a row, up to step 3, .* below 5 %") as refused:
        collapse.rank_of(COLLAPSED, 3)
    assert refused.value.where == "run"


def test_a_sound_look_in_between_starts_the_count_anew() -> None:
    collapse = Collapse(Path("run"))
    for features in (COLLAPSED, COLLAPSED, SOUND, COLLAPSED, COLLAPSED):
        collapse.rank_of(features, 0)
    assert collapse.rank_of(SOUND, 6) == pytest.approx(31, rel=1e-3)
    assert not collapse.is_near
