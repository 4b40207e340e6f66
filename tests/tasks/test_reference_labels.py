from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import hilum
import situations
import small_onnx
from hilum.errors import DatasetError
from hilum.tasks.segmentation.question import Segmentation
from hilum.tasks.shared import reference_labels
from hilum.values import Case, Geometry, Image, Label

GRID = Geometry((6, 1), np.eye(3))


def model(**names: int) -> Segmentation:
    return Segmentation(tuple(Label(value, name.replace("_", " ")) for name, value in names.items()))


BRATS = model(ncr=1, edema=2, enhancing=4)


def case(name: str, values: list[int], labels: str = "") -> Case:
    """A case with a mask of these voxels; labels: "1=ncr,2=edema", of which none are named where it is empty."""
    own = tuple(Label(int(one.split("=")[0]), one.split("=")[1]) for one in labels.split(",") if one)
    image = Image(np.zeros((1, *GRID.shape), np.float32), GRID)
    mask = np.array(values, np.uint8).reshape(1, *GRID.shape)
    return Case(name, name, {"image": image}, {"mask": Image(mask, GRID, labels=own)})


def read(task: Segmentation, *cases: Case) -> tuple[list[list[int]], list[str]]:
    """The masks under the model's numbers, and the sentences."""
    own, sentences = task.own_labels(cases)
    return [one.references["mask"].data.ravel().tolist() for one in own], list(sentences)


def test_a_structure_of_one_name_under_two_numbers_is_the_same():
    names = "1=ncr,2=edema,3=enhancing"
    masks, [sentence] = read(BRATS, case("a", [0, 1, 2, 3, 3, 0], names), case("b", [1, 1, 2, 3, 0, 0], names))
    assert masks == [[0, 1, 2, 4, 4, 0], [1, 1, 2, 4, 0, 0]]
    assert "matched by their names: 3 is enhancing (4 in the model)" in sentence


def test_numbers_that_change_places_are_mapped_by_name():
    assert read(model(core=1, coat=2), case("a", [0, 1, 2, 2, 1, 0], "1=coat,2=core"))[0] == [[0, 2, 1, 1, 2, 0]]
    spelt = case("a", [5, 0, 0, 0, 0, 5], "5=Left_Kidney")
    assert read(model(left_kidney=1), spelt)[0] == [[1, 0, 0, 0, 0, 1]]


def test_a_number_that_no_name_explains_is_refused_with_both_tables_and_the_flag():
    with pytest.raises(DatasetError) as refused:
        read(BRATS, *(case(name, [0, 1, 2, 3, 3, 0]) for name in "abcd"))
    assert refused.value.problem == (
        "the references of 4 of 4 cases hold the value 3, which the model does not know, and none holds 4 (enhancing): "
        "the model has 1 ncr, 2 edema, 4 enhancing, the references 1, 2, 3"
    )
    assert "--labels 1=ncr,2=edema,3=enhancing" in refused.value.remedy


def test_the_liver_under_another_number_is_refused_and_read_once_it_is_named():
    with pytest.raises(DatasetError, match=r"hold the value 5, .* none holds 1 \(liver\).*--labels 5=liver"):
        read(model(liver=1), case("a", [0, 5, 5, 0, 0, 0]))
    assert read(model(liver=1), case("a", [0, 5, 5, 0, 0, 0], "5=liver"))[0] == [[0, 1, 1, 0, 0, 0]]


def test_where_nobody_named_the_models_numbers_a_further_one_is_refused_and_its_number_can_be_named():
    unnamed = Segmentation((Label(1, "1"), Label(2, "2"), Label(4, "4")))
    with pytest.raises(DatasetError, match=r"the value 3, .*and none holds 4: .* --labels 1=1,2=2,3=4 "):
        read(unnamed, case("a", [1, 2, 3, 0, 0, 0]))
    assert read(unnamed, case("a", [1, 2, 3, 0, 0, 0], "1=1,2=2,3=4"))[0] == [[1, 2, 4, 0, 0, 0]]


def test_a_value_that_means_nothing_to_the_model_can_be_named_so():
    with pytest.raises(DatasetError, match="--labels 1=liver,7=other7 "):
        read(model(liver=1), case("a", [1, 7, 0, 0, 0, 0]))
    masks, sentences = read(model(liver=1), case("a", [1, 7, 0, 0, 0, 0], "1=liver,7=other7"))
    assert np.isin(masks, [0, 1, 7]).all()
    assert sentences == ["Not scored, because the model was not taught them: other7."]


def test_another_structure_under_a_number_of_the_model_is_background():
    """Of a set of many organs, numbered otherwise, a model knows two."""
    masks, sentences = read(model(lung=1, liver=2), case("a", [1, 2, 6, 0, 0, 0], "1=spleen,2=kidney,6=liver"))
    assert masks == [[0, 0, 2, 0, 0, 0]]
    assert any("not taught them: kidney, spleen" in one for one in sentences)
    assert any("No reference of 1 case holds 1 (lung)" in one for one in sentences)


def test_a_structure_that_no_reference_has_is_a_warning_and_one_that_some_have_is_none():
    sentences = read(BRATS, case("a", [0, 1, 2, 0, 0, 0]), case("b", [0, 1, 0, 0, 0, 0]))[1]
    assert sentences[0].startswith("No reference of 2 cases holds 4 (enhancing)")
    assert read(BRATS, case("a", [0, 1, 2, 0, 0, 0]), case("b", [4, 0, 0, 0, 0, 0])) == (
        [[0, 1, 2, 0, 0, 0], [4, 0, 0, 0, 0, 0]],
        [],
    )


def test_one_number_under_two_names_is_refused_where_both_sides_are_numbered_alike():
    with pytest.raises(DatasetError, match="the value 2 is 'tumor' in the reference and 'tumour' in the model"):
        reference_labels.own_values(model(liver=1, tumour=2).labels, (Label(1, "liver"), Label(2, "tumor")), "a")


def test_references_that_name_nothing_of_the_model_are_refused():
    with pytest.raises(DatasetError, match="the references name spleen, and the model knows 1 liver"):
        read(model(liver=1), case("a", [0, 3, 3, 0, 0, 0], "3=spleen"))


def test_unknown_voxels_stay_unknown_under_another_number():
    [own], _ = model(liver=3).own_labels([case("a", [1, 3, 0, 0, 0, 0], "1=liver,3=ignore")])
    values, known, _ = model(liver=3).truth.reference_map(own)
    assert_array_equal(values.ravel(), [3, 0, 0, 0, 0, 0])
    assert_array_equal(known.ravel(), [True, False, True, True, True, True])


def test_regions_are_matched_by_the_names_of_their_parts():
    parts = (Label(1, "core (rest)"), Label(2, "whole (rest)"), Label(3, "enhancing"))
    task = Segmentation(parts, regions={"whole": (2, 1, 3), "core": (1, 3), "enhancing": (3,)})
    named = "1=core (rest),2=whole (rest),4=enhancing"
    assert read(task, case("a", [0, 1, 2, 4, 0, 0], named))[0] == [[0, 1, 2, 3, 0, 0]]
    with pytest.raises(DatasetError, match=r"--labels '1=core \(rest\),2=whole \(rest\),4=enhancing' "):
        read(task, case("a", [0, 1, 2, 4, 0, 0]))


def test_a_case_whose_mask_contradicts_the_model_is_left_to_its_scoring_and_the_others_are_read():
    odd = case("odd", [1, 0, 0, 0, 0, 0], "1=spleen")
    own, _ = model(liver=1).own_labels([odd, case("a", [1, 0, 0, 0, 0, 0], "1=liver")])
    with pytest.raises(DatasetError, match="'spleen' in the reference"):
        _ = own[0].references["mask"]
    assert own[1].references["mask"].data.max() == 1


def test_cases_under_the_models_numbers_cross_processes():
    own, _ = BRATS.own_labels([case("a", [0, 3, 0, 0, 0, 0], "3=enhancing")])
    assert pickle.loads(pickle.dumps(own[0])).references["mask"].data.max() == 4  # noqa: S301


def test_references_of_another_year_are_refused_and_scored_once_they_are_named(tmp_path, caplog):
    # The output of a class is highest where a voxel has its mean: 2 m x - m² in place of -(x - m)².
    means = np.array([100.0, 200, 300, 400])
    weights = {"w": np.reshape(2 * means / 1000, (4, 1, 1, 1, 1)), "b": np.reshape(-(means**2) / 1000, (4, 1, 1, 1))}
    steps = [("Conv", "x w", "c"), ("Add", "c b", "o")]
    classes = {"background": 0, "ncr": 1, "edema": 2, "enhancing": 4}
    window = {"method": "window", "low": -1000, "high": 1000}
    described = {"channels": ["MR"], "patch": [16, 16, 16], "spacing": [1, 1, 2], "normalisation": [window]}
    network = small_onnx.network(tmp_path / "model", steps, weights, labels=classes, outputs="classes", **described)
    folder = tmp_path / "set"
    for n in range(4):
        mask = np.zeros(situations.SHAPE, np.uint8)
        mask[4:10, 4:10, 4:10] = 1
        mask[12:18, 4:10, 4:10] = 2
        mask[4:10, 14 : 20 + n, 4:10] = 3
        situations.write_scan(folder / "images" / f"p{n}.nii", 100 + 100 * mask.astype(np.int16))
        situations.write_scan(folder / "labels" / f"p{n}.nii", mask)
    with pytest.raises(DatasetError, match=r"4 of 4 cases hold the value 3, .* none holds 4 \(enhancing\)") as refused:
        hilum.evaluate(network, folder, device="cpu")
    labels = refused.value.remedy.split("--labels ")[1].split()[0]
    result = hilum.evaluate(network, folder, device="cpu", labels=labels)
    assert result.table.query("metric == 'dice'")["value"].tolist() == [1.0] * 4
    assert "3 is enhancing (4 in the model)" in result.notes[0]
    assert "matched by their names" in caplog.text
