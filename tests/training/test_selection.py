from __future__ import annotations

import pytest
import torch

from hilum.training import checkpoint_files
from hilum.training.checkpoint_files import SURE


class Mean:
    """A task of which the metric is a mean over cases."""

    @staticmethod
    def selection(collected):
        return collected["score"].mean().item()


def scores(*values):
    return {"score": torch.tensor(values)}


def share_better(teaching, earlier, last, seed):
    """Each case is another patient's."""
    patients = [str(n) for n in range(len(earlier["score"]))]
    return checkpoint_files.share_better(teaching, earlier, last, patients, seed=seed)


def test_many_images_of_few_patients_are_the_evidence_of_few():
    """Of five patients one gains in all his twenty images: no draw of patients is sure to have him."""
    earlier, last = scores(*[0.9] * 20, *[0.5] * 4), scores(*[0.5] * 24)
    patients = ["a"] * 20 + ["b", "c", "d", "e"]
    assert share_better(Mean, earlier, last, seed=0) > SURE
    assert checkpoint_files.share_better(Mean, earlier, last, patients, seed=0) == pytest.approx(1 - 0.8**5, abs=0.1)
    assert checkpoint_files.share_better(Mean, earlier, last, ["a"] * 24, seed=0) == 0.0


def test_weights_that_are_better_in_every_case_are_surely_better():
    assert share_better(Mean, scores(*[0.9] * 8), scores(*[0.8] * 8), seed=0) == 1.0


def test_weights_that_are_alike_are_never_better():
    assert share_better(Mean, scores(*[0.9] * 8), scores(*[0.9] * 8), seed=0) == 0.0


def test_one_lucky_case_of_ten_is_not_sure():
    lucky = scores(0.9, *[0.5] * 9)
    # A draw without that case is no better: 0.9^10 = 35 % of draws.
    assert share_better(Mean, lucky, scores(*[0.5] * 10), seed=0) == pytest.approx(1 - 0.9**10, abs=0.1)
    assert SURE > 1 - 0.9**10


def test_too_few_cases_say_nothing_however_they_agree():
    few = checkpoint_files.fewest_cases(1) - 1
    assert few == 4
    assert share_better(Mean, scores(*[0.9] * few), scores(*[0.1] * few), seed=0) == 0.0


def test_seven_cases_that_agree_are_too_few_for_the_best_of_nine():
    """All of seven agree by chance once in 128, and one of nine so once in 14."""
    ours, theirs, patients = scores(*[0.9] * 8), scores(*[0.1] * 8), [str(n) for n in range(8)]
    assert checkpoint_files.share_better(Mean, ours, theirs, patients, seed=0, tried=9) == 1.0
    seven = ({"score": one["score"][:7]} for one in (ours, theirs))
    assert checkpoint_files.share_better(Mean, *seven, patients[:7], seed=0, tried=9) == 0.0


def test_the_same_seed_resamples_the_same_cases():
    values = torch.rand(20, generator=torch.Generator().manual_seed(0)), torch.rand(20)
    shares = {share_better(Mean, *({"score": one} for one in values), seed=3) for _ in range(2)}
    assert len(shares) == 1


def test_the_best_of_many_has_to_be_surer_than_one_and_by_as_many_draws():
    assert checkpoint_files.required_share(1) == pytest.approx(0.95)
    assert checkpoint_files.required_share(22) == pytest.approx(1 - 0.05 / 22)
    assert checkpoint_files.bootstrap_draws(22) * (1 - checkpoint_files.required_share(22)) == pytest.approx(
        checkpoint_files.bootstrap_draws(1) * 0.05
    )
