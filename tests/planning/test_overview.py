from __future__ import annotations

import isocenter
import trained
from isocenter.planning import overview, with_settings
from isocenter.planning.plan_prose import is_silent, sentences_of


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
        assert is_silent(decision, sentences_of(made.plan).get(name)) or decision.because.split()[0] in text


def test_what_is_off_takes_one_line_a_section_unless_a_person_turned_it_off(tmp_path):
    made = isocenter.plan(trained.blobs(tmp_path / "data", 8), labels=trained.LABELS, device="cpu", threads=1).plan
    augmentation = overview(made).partition("\naugmentation\n")[2]
    off = next(line for line in augmentation.splitlines() if line.startswith("  off"))
    assert "elastic" in off
    assert "noise" not in off.replace("dose_noise", "")
    by_hand = overview(with_settings(made, {"augmentation.noise": 0.0}))
    assert any(line.split()[:3] == ["noise", "0", "set"] for line in by_hand.splitlines())
