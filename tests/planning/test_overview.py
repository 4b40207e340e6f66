from __future__ import annotations

import isocenter
import trained
from isocenter.planning import overview, with_settings


def test_a_plan_prints_as_a_table_with_its_predicted_memory(tmp_path):
    made = isocenter.plan(trained.blobs(tmp_path / "data", 8), labels=trained.LABELS, device="cpu", threads=1)
    text = repr(made)
    first, *rest = text.splitlines()
    assert first.startswith("segmentation with unet in 3D, patch 16 x 16 x 16, batch 4")
    assert f"{made.plan['training.memory']:.2f} GiB of memory" in first
    assert [line for line in rest if line and not line.startswith(" ")] == list(made.plan.sections)
    assert max(map(len, text.splitlines())) <= 120
    for name, decision in made.plan:
        assert name.partition(".")[2] in text
        assert decision.because.split()[0] in text


def test_changes_that_are_off_take_one_line_unless_a_person_turned_them_off(tmp_path):
    made = isocenter.plan(trained.blobs(tmp_path / "data", 8), labels=trained.LABELS, device="cpu", threads=1).plan
    off = next(line for line in overview(made).splitlines() if line.startswith("  off"))
    assert "elastic" in off
    assert "noise" not in off.replace("dose_noise", "")
    by_hand = overview(with_settings(made, {"augmentation.noise": 0.0}))
    assert any(line.split()[:3] == ["noise", "0", "set"] for line in by_hand.splitlines())
