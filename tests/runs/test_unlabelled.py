from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from numpy.testing import assert_array_equal

import hilum
import trained
from hilum.planning import plan_checks, plan_file
from hilum.runs import initial_weights
from hilum.runs.initial_weights import UnlabelledImages
from hilum.training.data import prepared_store
from hilum.training.data.batch_loading import Loader
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.step import batch_loss
from hilum.values import Case, LazyMapping


def refused():
    """The voxels of a reference that nobody may look at."""
    raise AssertionError("a reference was read")


def test_each_training_leaves_out_people_and_copies_of_all_cases_that_it_does_not_see():
    cases = tuple(SimpleNamespace(id=name) for name in ("mother", "copy", "stranger"))
    found = UnlabelledImages(cases, {"mother": frozenset({"a"})}, {"copy": frozenset({"b"})})
    for training, kept, without in (
        ({"a", "b", "c"}, ["mother", "copy", "stranger"], (0, 0)),
        ({"b", "c"}, ["copy", "stranger"], (1, 0)),
        ({"c"}, ["stranger"], (1, 1)),
    ):
        own, left_out = found.shown_to(training, "abc")
        assert [case.id for case in own] == kept
        assert tuple(left_out.values()) == without


def test_of_the_data_themselves_the_cases_without_a_reference_are_shown_without_those_of_held_out_patients(tmp_path):
    table = trained.lesions(tmp_path / "data", 24)
    rows = [row.split(",") for row in table.read_text().splitlines()]
    for number, row in enumerate(rows[1:5]):
        row[2], row[4] = "", f"p{10 + number}"  # no class, and a patient who has another image
    table.write_text("\n".join(",".join(row) for row in rows))
    given = {"objectives.terms": ["supervised", "mean_teacher"], "objectives.unlabelled": [str(table)]}
    made = hilum.plan(
        table, task="classification", column={"label": "label"}, patient="patient", device="cpu", assignments=given
    )
    planned, found = initial_weights.with_unlabelled(made)
    assert len(found.cases) == 4
    held = {case.patient for case in made.examination.dataset if made.parts.get(case.id) != "train"}
    kept, left_out = found.shown_to(
        [case for case, part in made.parts.items() if part == "train"], [case.id for case in made.examination.dataset]
    )
    assert not {case.patient for case in kept} & held
    assert left_out["patients"] == len({f"p{n}" for n in range(10, 14)} & held)
    assert (
        f"leaves out {left_out['patients']} of patients" in planned.plan.decision("objectives.unlabelled_hash").because
    )


def test_a_reference_of_an_unlabelled_case_is_never_read(segmented):
    plan = plan_file.read_plan(segmented.out / "plan.yaml")
    image = hilum.read(segmented.data / "images" / "case00.nii.gz")
    case = Case("one", "p1", {"image": image}, LazyMapping({"mask": refused}))
    [made] = prepared_store.prepare_all(
        [case], plan_checks.checked_settings(plan).preprocessing, None, threads=1, memory=2**30
    )
    assert (made.kind.name, made.positions) == ("none", ())
    assert made.image.shape[0] == 1


def unlabelled(count=4):
    """Images without targets, as they are prepared."""
    images = np.random.default_rng(0).normal(size=(count, 1, 8, 8)).astype(np.float32)
    return [PreparedCase(str(n), image, np.int64(0), (), (1.0, 1.0)) for n, image in enumerate(images)]


def test_a_step_samples_the_same_unlabelled_images_whatever_was_sampled_before():
    made = Loader(unlabelled(), (4, 4), 2, 0.0, 7, unlabelled=Loader(unlabelled(), (4, 4), 3, 0.0, 8))
    first, again = made.of_step(5), made.of_step(5)
    assert len(first.unlabelled.images) == 3
    assert_array_equal(first.unlabelled.images, again.unlabelled.images)
    assert_array_equal(first.images, Loader(unlabelled(), (4, 4), 2, 0.0, 7).of_step(5).images)


def test_views_lie_on_one_another_and_differ_in_their_intensities(classified):
    chosen = plan_checks.checked_settings(plan_file.read_plan(classified.out / "plan.yaml"))
    moving, _ = chosen.augmentation.parts
    batch = Loader(unlabelled(8), (8, 8), 8, 0.0, 7)
    still = SimpleNamespace(augmentation=moving, task=chosen.task, preprocessing=chosen.preprocessing)
    first, second = batch_loss.augmented_views(batch.of_step(0), 2, still, "cpu")
    assert first.images.equal(second.images)
    first, second = batch_loss.augmented_views(batch.of_step(0), 2, chosen, "cpu")
    assert not first.images.equal(second.images)
    assert first.targets is None
