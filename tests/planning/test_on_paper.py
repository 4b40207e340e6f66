"""Plans for GPUs that are not here: patch and batch follow from their memory."""

from __future__ import annotations

import math

import pytest

import hilum
import trained
from fingerprints import SAMPLED, cohort, facts, several
from hilum.errors import PlanError, ResourceError, UsageError
from hilum.planning import plan_checks, planner
from hilum.planning.plan_inputs import Wishes
from hilum.planning.training_memory import Machine
from hilum.values import Decision, Fingerprint, Plan


def planned(found: Fingerprint, memory: float, minutes: float = 600.0, **given) -> Plan:
    machine = Machine("cuda:0", 8, 64.0, memory, True)
    wishes = Wishes(Decision("cuda:0", "on paper"), minutes=minutes, **given)
    return planner.make_plan(cohort(found.cases), found, SAMPLED, machine, wishes)


def hippocampus() -> Fingerprint:
    return several(260, shape=(36, 50, 35))


def ct() -> Fingerprint:
    return several(40, shape=(512, 512, 300), steps=(0.8, 0.8, 1.5), modality="CT")


def radiographs() -> Fingerprint:
    classes = ("well", "ill")
    return Fingerprint(
        tuple(
            facts((1024, 1024), name=f"c{n}", modality="DX", references={"class": classes[n % 2]}, physical=False)
            for n in range(2000)
        )
    )


@pytest.mark.parametrize("network", [None, "residual_encoder_unet"])
def test_a_small_volume_is_seen_whole_and_more_of_them_a_step_at_most_a_twentieth_of_the_set(network):
    made = planned(hippocampus(), 24.0, network=network)
    assert made["training.patch"] == [40, 56, 40]
    assert made["training.batch"] == 8  # of 260 cases a twentieth is 13
    assert "at most a twentieth of all training voxels" in made.decision("training.batch").because
    assert made["training.memory"] < 0.8 * 24
    plan_checks.checked_settings(made)


@pytest.mark.whole
def test_patches_of_a_large_ct_grow_with_the_memory_and_fill_nearly_half_of_it():
    memories = {None: (8.0, 24.0), "residual_encoder_unet": (24.0, 80.0)}
    found = {name: [planned(ct(), one, network=name) for one in own] for name, own in memories.items()}
    for small, large in found.values():
        assert math.prod(small["training.patch"]) < math.prod(large["training.patch"])
    # Residual blocks keep more on the way, so that patches are smaller.
    assert math.prod(found["residual_encoder_unet"][0]["training.patch"]) < math.prod(found[None][1]["training.patch"])
    for made, memory in [pair for name, own in memories.items() for pair in zip(found[name], own, strict=True)]:
        assert made["training.batch"] == 2
        assert 0.4 * memory < made["training.memory"] <= 0.8 * memory
        plan_checks.checked_settings(made)


@pytest.mark.whole
def test_in_few_minutes_a_patch_stays_as_small_as_leaves_time_for_steps():
    long, short = planned(ct(), 24.0), planned(ct(), 24.0, minutes=20.0)
    assert math.prod(short["training.patch"]) <= 1.6 * 2**21 < math.prod(long["training.patch"])


def test_radiographs_are_looked_at_whole_and_finer_where_memory_has_room():
    long, short = planned(radiographs(), 24.0), planned(radiographs(), 24.0, minutes=20.0)
    assert (short["training.patch"], long["training.patch"]) == ([256, 256], [512, 512])
    assert long["training.batch"] == short["training.batch"] == 64
    assert long["training.memory"] < 0.8 * 24


@pytest.mark.whole
def test_a_device_whose_memory_holds_no_patch_is_refused_with_a_remedy():
    with pytest.raises(ResourceError, match="take a larger machine"):
        planned(ct(), 0.05)


def test_a_plan_on_paper_needs_no_gpu(segmented, cli):
    made = hilum.plan(segmented.data, labels=trained.LABELS, device="cuda:0", device_memory=24).plan
    assert made["training.device"] == "cuda:0"
    assert "24 GiB of memory, which need not be on this machine" in made.decision("training.device").because
    ended = cli("plan", segmented.data, "--labels", trained.LABELS, "--device", "cpu", "--device-memory", 24)
    assert ended.code == 2
    assert "24 GiB are those of a GPU, and the device is cpu" in ended.last


@pytest.mark.parametrize("memory", [0.0, -2.0, math.inf])
def test_an_impossible_memory_is_refused(tmp_path, memory):
    with pytest.raises(UsageError, match="Give more than 0"):
        hilum.plan(tmp_path, device="cuda:0", device_memory=memory)


def test_an_unknown_network_is_still_named():
    with pytest.raises(PlanError, match="there is no network"):
        planned(hippocampus(), 24.0, network="no_such")
