"""A network that cannot see the images or answer the question is refused by the plan, not in mid-training."""

from __future__ import annotations

import pytest

import hilum
import trained
from hilum.errors import PlanError


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return trained.pictures(tmp_path_factory.mktemp("pictures"), 12)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    return trained.blobs(tmp_path_factory.mktemp("volumes"), 10)


def refused(data, name: str, says: str, **assignments: object) -> str:
    """What the plan says: what is wrong, which decision, and what to do."""
    labels = {"labels": trained.LABELS} if (data / "labels").is_dir() else {}
    given = {"network.name": name, **{key.replace("__", "."): value for key, value in assignments.items()}}
    with pytest.raises(PlanError, match=says) as refusal:
        hilum.plan(data, device="cpu", threads=1, assignments=given, **labels)
    assert refusal.value.remedy
    return refusal.value.where


def test_images_that_are_too_small_for_a_family_are_refused_with_another_size_or_family(pictures):
    small = {"widths": [4, 8, 8, 8, 8], "hidden": 16, "cells": 2, "stem_stride": 4}
    where = refused(pictures, "alexnet", "does not fit alexnet", network__size=small, training__patch=[1, 1])
    assert where == "training.patch"


def test_a_batch_of_one_that_leaves_a_normalisation_a_single_value_is_refused_with_a_larger_batch(pictures):
    deep = {"width": 4, "blocks": [1, 1, 1, 1, 1, 1]}
    says = r"batches of 1 does not fit resnet \(Expected more than 1 value.*a larger batch"
    assert refused(pictures, "resnet", says, network__size=deep, training__batch=1) == "training.patch"


def test_images_of_other_axes_than_a_family_has_are_refused_with_one_that_has_them(pictures, volumes):
    refused(volumes, "timm", "choose resnet")
    refused(volumes, "unet_slices", "axis 3", network__size={"strides": [[1, 1], [2, 2]], "axis": 3})


def test_a_question_that_a_family_does_not_answer_is_refused_with_one_that_does(pictures, volumes):
    refused(volumes, "resnet", "hoose unet")
    refused(pictures, "plain_conv_unet", "nothing else")
    refused(pictures, "fcos", "boxes only.*unet or resnet")
    refused(volumes, "mask_rcnn", "unet does so in volumes")
