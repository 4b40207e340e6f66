from __future__ import annotations

from hilum.values import Estimate
from hilum.values.dataset_fingerprint import Shortcut


def test_a_chance_too_small_to_be_counted_is_stated_as_a_bound():
    def text(p: float) -> str:
        return Shortcut("border pixels", Estimate(0.9), p, removable=True, standing=True).p_text

    assert (text(4e-6), text(0.0213), text(1.0)) == ("< 0.001", "= 0.021", "= 1")
