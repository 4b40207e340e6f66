"""A map that follows the network passes its tests, one that follows the image fails; what cohorts of maps look at."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import numpy as np
import PIL.Image
import pytest
import torch
from numpy.testing import assert_allclose

from apple_gpus import on_apple
from explanation.looking import Linear, classes, corner_model, model, textured
from hilum.errors import GeometryError, UsageError
from hilum.explanation import answer_maps, evidence_places, explanation_methods, faithfulness
from hilum.explanation.case_on_grid import CaseOnGrid
from hilum.explanation.evidence_places import SmallMap
from hilum.explanation.explanation_methods import Method
from hilum.explanation.faithfulness import RADIUS, FaithfulnessWindow
from hilum.report.figures import heat_map
from hilum.runtime.torch_networks import Differentiable
from hilum.scoring.explaining import cohort_explanation
from hilum.tasks.detection.question import Detection
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.tasks.segmentation.question import Segmentation
from hilum.values import BoundingBoxes, Case, Geometry, Image, Label

COUNT = 8


def edges(subject):
    """A filter that knows no network."""
    steps = torch.gradient(subject.image[0, 0])
    return sum(abs(one) for one in steps)[None, None]


def verdict(method, of, count=COUNT):
    found, torch_model = [], Differentiable.from_networks(of.networks)
    for n in range(count):
        grid = CaseOnGrid.from_case(of, textured(n), "bright", torch_model)
        window = FaithfulnessWindow(grid.subjects(grid.fullest_window()), grid.shares)
        found.append(faithfulness.assess_method(window, method, seed=n))
    return faithfulness.method_verdict(found, [str(n) for n in range(count)], seed=0)


def test_a_map_is_tested_also_where_a_gpu_has_no_float64():
    of = corner_model()
    grid = CaseOnGrid.from_case(of, textured(0), "bright", Differentiable.from_networks(of.networks))
    subjects = grid.subjects(grid.fullest_window())
    on_gpu = [replace(one, image=on_apple(one.image)) for one in subjects]
    flat = subjects[0].image[0, 0]
    assert faithfulness._curves(FaithfulnessWindow(on_gpu, grid.shares), on_apple(flat)) == faithfulness._curves(
        FaithfulnessWindow(subjects, grid.shares), flat
    )


def test_a_map_that_follows_the_network_passes_its_tests():
    made = verdict(explanation_methods.named_methods("integrated_gradients")[0], corner_model())
    assert made.passed, made.because
    assert made.measures["randomisation"].value < 0.3
    assert made.measures["deletion_over_edges"].low > 0
    better = made.record["deletion_over_edges"]
    assert better["low"] < better["value"] < better["high"]
    assert {"infidelity", "sensitivity", "stability"} <= set(made.record)


@pytest.mark.parametrize("channels", [1, 3])
def test_sensitivity_is_how_far_maps_move_as_a_share_of_the_map(channels):
    of = corner_model(channels=channels)
    picture = textured(0)
    pixels = np.concatenate([picture.pixels] * channels)
    image = Image(pixels, picture.geometry, channels=tuple(map(str, range(channels))))
    grid = CaseOnGrid.from_case(of, image, "bright", Differentiable.from_networks(of.networks))
    window = FaithfulnessWindow(grid.subjects(grid.fullest_window()), grid.shares)
    own = window.image
    found = faithfulness.assess_method(window, Method("itself", lambda subject: subject.image, "the image"), seed=0)
    # Each number moves evenly within the radius to both sides: a third of its square is the mean square.
    radius = RADIUS * float(own.max() - own.min())
    assert_allclose(found["sensitivity"], radius * (own.numel() / 3) ** 0.5 / float(own.norm()), rtol=0.1)


def test_an_edge_filter_fails_because_it_stays_the_same_when_the_weights_are_randomised():
    made = verdict(Method("edges", edges, "edges"), corner_model())
    assert made.passed is False
    assert "stay alike when weights are randomised (absolute rank correlation 1.00)" in made.because
    assert "deletion and insertion not shown to be better than of an edge filter" in made.because
    assert_allclose(made.measures["deletion_over_edges"].value, 0, atol=0.3)


def test_a_map_that_only_changes_its_sign_when_the_weights_are_randomised_fails():
    def signed_edges(subject):
        """An edge filter whose sign is randomised with the weights."""
        return edges(subject) * torch.sign(subject.module.weights.sum()).detach()

    made = verdict(Method("edges", signed_edges, "edges"), corner_model())
    assert made.passed is False
    assert "stay alike when weights are randomised (absolute rank correlation 1.00)" in made.because


def test_few_cases_judge_nothing():
    made = verdict(explanation_methods.named_methods("integrated_gradients")[0], corner_model(), count=3)
    assert made.passed is None
    assert "3 cases, which is too few to judge" in made.because


def test_randomising_weights_for_a_test_leaves_the_model_as_it_is():
    of = corner_model()
    before = of.networks.run.module.weights.clone()
    verdict(explanation_methods.named_methods("integrated_gradients")[0], of, count=1)
    assert torch.equal(of.networks.run.module.weights, before)


def test_a_cohort_that_looks_at_a_corner_is_found_to_and_one_that_looks_at_the_middle_is_not():
    [method] = explanation_methods.named_methods("integrated_gradients")
    of = corner_model()
    maps = [answer_maps.explain_case(of, textured(n), method, target="bright").data for n in range(COUNT)]
    rows = {
        row["kind"]: row
        for row in evidence_places.place_findings(
            [SmallMap.from_map(str(n), "a", one, 2) for n, one in enumerate(maps)], seed=0
        )
    }
    assert set(rows) == {"border", "corner"}
    assert rows["corner"]["p"] < 0.05
    assert rows["corner"]["share"] > 0.95
    assert set(rows["corner"]) == {"kind", "target", "share", "area", "p", "cases"}
    middle = [np.roll(one, (8, 8), axis=(0, 1)) for one in maps]
    rows = evidence_places.place_findings(
        [SmallMap.from_map(str(n), "a", one, 2) for n, one in enumerate(middle)], seed=0
    )
    assert min(row["p"] for row in rows) > 0.5


def test_a_mark_that_stands_for_one_answer_alone_is_found_in_its_maps_and_not_in_those_of_the_other():
    def looking(n):
        data = np.random.default_rng(n).uniform(0, 0.01, (40, 40)).astype(np.float32)
        rows, columns = (slice(0, 6), slice(0, 6)) if n % 2 else (slice(8, 32), slice(8, 32))
        data[rows, columns] += 1.0
        return SmallMap.from_map(str(n), "ab"[n % 2], data, 2)

    found = evidence_places.place_findings([looking(n) for n in range(16)], seed=0)
    assert {one["target"] for one in found if one["kind"] == "corner" and one["p"] < 0.05} == {"b"}
    few = [replace(looking(2 * n + 1), target=str(n)) for n in range(6)]
    assert {one["target"] for one in evidence_places.place_findings(few, seed=0)} == {"all"}


def test_maps_of_an_answer_that_lie_elsewhere_than_those_of_others_are_a_cluster():
    def lying(n, place):
        data = np.random.default_rng(n).uniform(0, 0.01, (40, 40)).astype(np.float32)
        data[place : place + 6, 17:23] += 1.0
        return data

    maps = [SmallMap.from_map(str(n), "ab"[n % 2], lying(n, 10 + 14 * (n % 2)), 2) for n in range(16)]
    rows = {row["kind"]: row for row in evidence_places.place_findings(maps, seed=0)}
    assert rows["cluster of a"]["p"] < 0.05
    assert rows["cluster of a"]["share"] > 5 * rows["cluster of a"]["area"]
    alike = [replace(one, target="ab"[n // 8]) for n, one in enumerate(maps)]
    assert {row["kind"]: row for row in evidence_places.place_findings(alike, seed=0)}["cluster of a"]["p"] > 0.05


def test_evidence_on_letters_is_held_against_their_area():
    letters = np.zeros((40, 40), dtype=bool)
    letters[4:8, 10:30] = True
    maps = [SmallMap.from_map(str(n), "a", letters.astype(np.float32), 2, letters) for n in range(6)]
    rows = {row["kind"]: row for row in evidence_places.place_findings(maps, seed=0)}
    assert rows["text"]["p"] < 0.05
    assert rows["text"]["share"] > 5 * rows["text"]["area"]


def test_the_pointing_game_and_the_evidence_inside_are_those_of_the_marks():
    of, [method] = corner_model(), explanation_methods.named_methods("integrated_gradients")
    image = textured(0)
    inside = np.zeros((20, 20), dtype=np.uint8)
    inside[:4, :4] = 1
    case = Case("a", "a", {"image": image}, {"mask": Image(inside[None], image.geometry)})
    measured = evidence_places.compare_with_region(
        answer_maps.explain_case(of, case, method, target="bright").data,
        evidence_places.reference_mask(case, image, "bright", classes()),
    )
    assert measured["pointing"] == 1
    assert_allclose([measured["energy"], measured["area"]], [1.0, 0.04], atol=1e-3)
    boxed = replace(case, references={"boxes": BoundingBoxes(np.array([[0.0, 0, 4, 4]]), ("thing",))})
    assert_allclose(evidence_places.reference_mask(boxed, image, "bright", classes()), inside > 0)


def test_a_class_of_the_whole_image_marks_nothing_so_that_its_number_is_no_value_of_a_mask():
    image, contoured = textured(0), np.zeros((20, 20), dtype=np.uint8)
    contoured[:4, :4] = 1
    case = Case("a", "a", {"image": image}, {"mask": Image(contoured[None], image.geometry)})
    for target in classes().classes:  # "calm" is class 0, as what is not marked is
        assert_allclose(evidence_places.reference_mask(case, image, target, classes()), contoured > 0)


def test_a_structure_that_is_not_contoured_in_a_case_is_not_held_against_another():
    image, contoured = textured(0), np.zeros((20, 20), dtype=np.uint8)
    contoured[:4, :4] = 1
    kidneys = Segmentation((Label(1, "kidney"), Label(2, "tumour")))
    case = Case("a", "a", {"image": image}, {"mask": Image(contoured[None], image.geometry)})
    assert_allclose(evidence_places.reference_mask(case, image, "kidney", kidneys), contoured > 0)
    assert evidence_places.reference_mask(case, image, "tumour", kidneys) is None
    # The names that came with the mask go before the model's numbers.
    named = replace(case.references["mask"], labels=(Label(1, "tumour"), Label(2, "kidney")))
    turned = replace(case, references={"mask": named})
    assert_allclose(evidence_places.reference_mask(turned, image, "tumour", kidneys), contoured > 0)
    clip = np.stack([contoured, 2 * contoured])[None]  # where the kidney was, the tumour is in the next frame
    moved = replace(case, references={"mask": Image(clip, image.geometry)})
    assert_allclose(evidence_places.reference_mask(moved, image, "kidney", kidneys), contoured > 0)
    parts = (Label(1, "oedema"), Label(2, "core"), Label(3, "rim"))
    tumours = Segmentation(parts, regions={"whole": (1, 2), "core": (2,)})
    contoured[8:12, 8:12], contoured[14:18, 14:18] = 2, 3
    several = replace(case, references={"mask": Image(contoured[None], image.geometry)})
    for target, values in {"whole": (1, 2), "core": (2,)}.items():
        assert_allclose(evidence_places.reference_mask(several, image, target, tumours), np.isin(contoured, values))
    other = Image(contoured[None], image.geometry, labels=(Label(3, "oedema"), Label(1, "core"), Label(2, "ignore")))
    renamed = replace(case, references={"mask": other})
    assert_allclose(evidence_places.reference_mask(renamed, image, "whole", tumours), np.isin(contoured, (1, 3)))
    contoured[8:] = 0
    cells = Detection(("red", "white"), 2, 4.0)
    boxed = replace(case, references={"boxes": BoundingBoxes(np.array([[0.0, 0, 4, 4]]), ("red",))})
    assert_allclose(evidence_places.reference_mask(boxed, image, "red", cells), contoured > 0)
    assert evidence_places.reference_mask(boxed, image, "white", cells) is None
    assert_allclose(evidence_places.reference_mask(boxed, image, "box 1", cells), contoured > 0)


def test_objects_that_are_numbered_are_all_marked():
    image, contoured = textured(0), np.zeros((20, 20), dtype=np.uint8)
    contoured[:4, :4], contoured[8:12, 8:12] = 1, 2
    case = Case("a", "a", {"image": image}, {"instances": Image(contoured[None], image.geometry)})
    assert_allclose(
        evidence_places.reference_mask(case, image, "object", InstanceSegmentation((1.0, 1.0), 4.0)), contoured > 0
    )


def test_references_on_another_grid_are_refused_with_the_case():
    image = textured(0)
    other = Image(np.ones((1, 20, 20), dtype=np.uint8), Geometry((20, 20), np.diag([2.0, 2.0, 1.0])))
    case = Case("p7", "p7", {"image": image}, {"mask": other})
    with pytest.raises(GeometryError, match=r"p7: .* lies on another grid than the image"):
        evidence_places.reference_mask(case, image, "bright", classes())


def test_several_images_have_a_map_each_and_a_network_that_sees_the_first_alone_has_nothing_in_the_second():
    weights = np.zeros((2, 8, 8))
    weights[0] = 1.0
    of = model(Linear(weights), (8, 8), channels=("T1", "T2"))
    pixels = np.random.default_rng(0).uniform(0.1, 1, (2, 8, 8)).astype(np.float32)
    image = Image(pixels, Geometry((8, 8), np.eye(3)), channels=("T1", "T2"))
    for name in ("integrated_gradients", "occlusion"):
        made = answer_maps.explain_case(of, image, explanation_methods.named_methods(name)[0], target="bright")
        assert set(made.images) == {"T1", "T2"}
        assert abs(made.images["T1"]).max() > 1e-3
        assert_allclose(made.images["T2"], 0, atol=1e-5)
        assert_allclose(made.data, made.images["T1"] + made.images["T2"], atol=1e-5)


def test_of_several_images_each_has_a_picture_of_its_own_map_and_one_that_the_case_lacks_has_none():
    weights = np.ones((2, 8, 8))
    of = model(Linear(weights), (8, 8), channels=("T1", "T2"))
    pixels = np.random.default_rng(0).uniform(0.1, 1, (2, 8, 8)).astype(np.float32)
    image = Image(pixels, Geometry((8, 8), np.eye(3)), channels=("T1", "T2"))
    [method] = explanation_methods.named_methods("occlusion")
    made = answer_maps.explain_case(of, image, method, target="bright")
    pictures = cohort_explanation.map_pictures(made, image, method, None, failed=False)
    assert list(pictures) == ["occlusion", "occlusion_T1", "occlusion_T2"]
    assert "all images together, over T1" in pictures["occlusion"].caption
    one = Image(pixels[1:], image.geometry, channels=("T2",))
    assert list(cohort_explanation.map_pictures(made, one, method, None, failed=False)) == ["occlusion", "occlusion_T2"]


def test_an_unknown_target_is_refused():
    with pytest.raises(UsageError, match="no target 'dog'"):
        CaseOnGrid.from_case(corner_model(), textured(0), "dog")


def test_a_map_without_any_evidence_says_so_and_shows_the_middle_of_the_volume():
    image = Image(np.random.default_rng(0).random((1, 8, 9, 11)).astype(np.float32), Geometry((8, 9, 11), np.eye(4)))
    overlay = heat_map.heat_overlay(
        image, np.zeros((8, 9, 11), dtype=np.float32), "gradcam: ball", caption="how it is made"
    )
    assert "how it is made. Nothing in the image supports the target." in overlay.caption
    assert "axial, slice 6 of 11" in overlay.caption
    seen = heat_map.heat_overlay(image, np.eye(8, 9, dtype=np.float32)[..., None] * np.ones(11), "gradcam: ball")
    assert "Nothing" not in seen.caption


def test_a_few_voxels_far_above_all_others_do_not_make_the_rest_of_a_map_unseen():
    image, data = Image(np.zeros((1, 20, 20), dtype=np.float32), Geometry((20, 20), np.eye(3))), np.zeros((20, 20))
    data[5:15, 5:15] = 1.0
    data[0, 0] = 100.0
    assert pixels_of(heat_map.heat_overlay(image, data, "rise: ill"))[5:15, 5:15].max(axis=2).min() > 60


def test_what_experts_marked_is_outlined_and_failed_stands_across_the_whole_map():
    image, data = Image(np.zeros((1, 20, 20), dtype=np.float32), Geometry((20, 20), np.eye(3))), np.zeros((20, 20))
    plain = pixels_of(heat_map.heat_overlay(image, data, "rise: ill"), 200)
    outlined = pixels_of(
        heat_map.heat_overlay(image, data, "rise: ill", inside=np.pad(np.ones((8, 8), dtype=bool), 6)), 200
    )
    differ = np.abs(outlined - plain).sum(axis=2) > 60
    assert differ[55:145, 58:62].any()
    assert not differ[80:120, 80:120].any()
    written = (
        np.abs(pixels_of(heat_map.heat_overlay(image, data, "rise: ill", failed=True), 200) - plain).sum(axis=2) > 60
    )
    assert np.ptp(np.flatnonzero(written.any(axis=0))) > 120


def pixels_of(figure, side=20):
    """(side, side, 3) of a picture of a square image."""
    seen = PIL.Image.open(BytesIO(figure.png)).convert("RGB").resize((side, side), PIL.Image.Resampling.BOX)
    return np.asarray(seen).astype(int)
