"""What holds for every layout: how one is chosen, ids, options, problems, hashes, spawned processes."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import PIL.Image
import pytest

import real_data
from cohorts import classed, paired, picture, volume
from hilum.errors import DatasetError, FormatError, UsageError
from hilum.files import modality_words
from hilum.files.format_options import ReadOptions
from hilum.files.storage import hashing
from hilum.layouts import dataset_layouts
from hilum.layouts import layout as layouts_layout
from hilum.layouts.cases import class_labels
from hilum.layouts.layout import LAYOUTS, DatasetOptions
from layout_examples import write_example


def test_the_index_lists_every_layout_under_its_name():
    files = {path.stem for path in (Path(layouts_layout.load_layout.__code__.co_filename).parent).glob("*.py")}
    assert set(LAYOUTS) <= files
    for name in LAYOUTS:
        layout = layouts_layout.load_layout(name)
        assert layout.name == name
        assert layout.over <= set(LAYOUTS)


def test_a_missing_folder_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="no such"):
        dataset_layouts.read_dataset(tmp_path / "nowhere")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="empty"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_folder_without_images_says_what_it_holds(tmp_path):
    (tmp_path / "notes.docx").write_text("text")
    with pytest.raises(DatasetError, match=r"\.docx"):
        dataset_layouts.read_dataset(tmp_path)


def test_images_without_labels_are_for_prediction_only(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(DatasetError, match="no labels"):
        dataset_layouts.read_dataset(tmp_path)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert [case.id for case in dataset] == ["a"]
    assert dataset.kinds == frozenset()


def test_one_file_is_a_data_set_of_one_case(tmp_path):
    dataset = dataset_layouts.read_dataset(volume(tmp_path / "head.nii.gz"), DatasetOptions(references=False))
    assert [case.id for case in dataset] == ["head"]
    assert dataset.cases[0].images["image"].geometry.shape == (4, 5, 6)


def test_mixed_layouts_are_listed_with_the_flag_that_chooses(tmp_path):
    paired(tmp_path)
    classed(tmp_path)
    with pytest.raises(DatasetError, match=r"image_folders.*class_folders.*--layout"):
        dataset_layouts.read_dataset(tmp_path)
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="class_folders"))) == 6
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(layout="image_folders"))) == 4


def test_nnunet_folders_beside_plain_ones_are_ambiguous(tmp_path):
    volume(tmp_path / "imagesTr" / "c1_0000.nii.gz")
    volume(tmp_path / "labelsTr" / "c1.nii.gz")
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}}')
    assert dataset_layouts.read_dataset(tmp_path).cases[0].images["CT"].modality == "CT"
    paired(tmp_path)
    with pytest.raises(DatasetError, match=r"nnunet.*image_folders.*--layout"):
        dataset_layouts.read_dataset(tmp_path)


def test_columns_mean_a_table(tmp_path):
    with pytest.raises(UsageError, match="no table"):
        dataset_layouts.read_dataset(paired(tmp_path), DatasetOptions(column={"label": "grade"}))
    (tmp_path / "table.csv").write_text("image,grade\nimages/x0.png,1\nimages/x1.png,2\n")
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(column={"label": "grade"}))
    assert [case.references["class"] for case in dataset] == ["1", "2"]


def test_numbers_of_cases_are_not_taken_for_channels(tmp_path):
    for n in range(3):
        picture(tmp_path / f"scan_{n:04d}.png", n)
    assert len(dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))) == 3
    for n in range(3):
        picture(tmp_path / "set" / "images" / f"scan_{n:04d}.png", n)
        picture(tmp_path / "set" / "labels" / f"scan_{n:04d}.png", n)
    assert len(dataset_layouts.read_dataset(tmp_path / "set")) == 3


def test_numbers_of_channels_are_told_by_their_order(tmp_path):
    for case in ("a", "b"):
        for n in range(2):
            picture(tmp_path / f"{case}_{n:04d}.png", n)
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))
    assert [(case.id, list(case.images)) for case in dataset] == [("a", ["0", "1"]), ("b", ["0", "1"])]


def test_one_class_alone_is_refused(tmp_path):
    picture(tmp_path / "PNEUMONIA" / "1.png")
    picture(tmp_path / "PNEUMONIA" / "2.png")
    with pytest.raises(DatasetError, match="PNEUMONIA"):
        dataset_layouts.read_dataset(tmp_path)


def test_a_list_of_images_called_labels_is_no_table_of_names(tmp_path):
    paired(tmp_path)
    (tmp_path / "labels.csv").write_text("name,grade\nx0,1\nx1,2\nx2,1\nx3,1\n")
    (tmp_path / "classes.csv").write_text("value,name\n1,lesion\n")
    assert [label.name for label in dataset_layouts.read_dataset(tmp_path).classes["mask"]] == ["lesion"]


def test_an_unknown_layout_is_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="class_folders"):
        dataset_layouts.read_dataset(classed(tmp_path), DatasetOptions(layout="folders"))


def test_hidden_files_are_not_there(tmp_path):
    classed(tmp_path)
    (tmp_path / "benign" / "._benign0.png").write_bytes(b"junk of another system")
    picture(tmp_path / ".cache" / "x.png")
    assert len(dataset_layouts.read_dataset(tmp_path)) == 6


def test_an_empty_file_is_a_problem_and_the_rest_goes_on(tmp_path):
    paired(tmp_path)
    (tmp_path / "images" / "x1.png").write_bytes(b"")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(dataset) == 3
    [problem] = dataset.problems
    assert (problem.severity, problem.cases) == ("error", ("x1",))


def test_a_damaged_file_is_refused_when_it_is_read_and_not_before(tmp_path):
    paired(tmp_path)
    (tmp_path / "images" / "x1.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(dataset) == 4
    assert dataset.cases[0].images["image"].data.max() == 0
    with pytest.raises(FormatError, match=r"x1\.png"):
        _ = dataset.cases[1].images["image"]


def test_equal_names_in_two_folders_get_different_ids(tmp_path):
    for name in ("benign", "malignant"):
        for n in range(2):
            picture(tmp_path / name / f"{n}.png")
    assert [case.id for case in dataset_layouts.read_dataset(tmp_path)] == [
        "benign-0",
        "benign-1",
        "malignant-0",
        "malignant-1",
    ]


def test_equal_names_in_train_and_test_get_different_ids_and_their_own_masks(tmp_path):
    for split, value in (("train", 0), ("test", 255)):
        for n in range(2):
            picture(tmp_path / split / "images" / f"{n}.png", value)
            picture(tmp_path / split / "masks" / f"{n}.png", value)
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len({case.id for case in dataset}) == 4
    for case in dataset:
        expected = 255 if dataset.splits[case.id] == "test" else 0
        assert case.images["image"].data.max() == expected
        assert class_labels.observed_values(case) == ((1,) if expected else ())


def test_a_case_crosses_processes(tmp_path):
    dataset = dataset_layouts.read_dataset(paired(tmp_path), DatasetOptions(read=ReadOptions(prefer="sform")))
    case = pickle.loads(pickle.dumps(dataset)).cases[1]  # noqa: S301  our own
    assert case.images["image"].data.max() == 1
    assert class_labels.observed_values(case) == (1,)


def test_reading_a_data_set_opens_no_image(tmp_path, monkeypatch):
    paired(tmp_path)
    opened = []
    real = PIL.Image.open
    monkeypatch.setattr(PIL.Image, "open", lambda path, *rest: opened.append(path) or real(path, *rest))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert opened == []
    _ = dataset.cases[0].images["image"]
    assert len(opened) == 1


def test_the_hash_follows_contents_and_not_names(tmp_path):
    first = dataset_layouts.read_dataset(paired(tmp_path / "first"))
    second = dataset_layouts.read_dataset(paired(tmp_path / "second"))
    assert hashing.dataset_hash(first) == hashing.dataset_hash(second)
    assert hashing.content_hash(first.cases[0]) == hashing.content_hash(second.cases[0])
    assert hashing.content_hash(first.cases[0]) != hashing.content_hash(first.cases[1])
    picture(tmp_path / "second" / "labels" / "x0.png", 255)
    assert hashing.dataset_hash(first) != hashing.dataset_hash(second)


def test_a_file_that_changed_is_hashed_again(tmp_path):
    path = picture(tmp_path / "a.png", 1)
    before, times = hashing.file_hash(path), path.stat()
    picture(path, 2)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    assert hashing.file_hash(path) != before


@pytest.mark.parametrize(
    ("stated", "word"),
    [
        ("MRI", "MR"), ("T1", "MR"), ("FLAIR", "MR"), ("t1-weighted MR", "MR"), ("CT", "CT"), ("noNormCT", "unknown"),
        ("X-ray", "DX"), ("PET", "PT"), ("ultrasound", "US"), ("IVUS", "IVUS"), (None, "unknown"), ("red", "unknown"),
        ("x_ray", "DX"), ("mammography", "MG"), ("fundus", "OP"), ("oct", "OPT"), ("histopathology", "SM"),
        ("dermoscopy", "XC"), ("endoscopy", "ES"), ("computed_tomography", "CT"), ("digital_pathology", "SM"),
        ("magnetic resonance imaging", "MR"), ("optical_coherence_tomography", "OPT"),
    ],
)  # fmt: skip
def test_kinds_of_image_get_dicoms_word(stated, word):
    assert modality_words.modality_word(stated) == word


def test_the_modality_may_be_said(tmp_path):
    dataset = dataset_layouts.read_dataset(paired(tmp_path), DatasetOptions(modality="ultrasound"))
    assert dataset.modality == "US"
    assert dataset.cases[0].images["image"].modality == "US"


@pytest.mark.parametrize(
    ("stated", "word"), [("MRI", "MR"), ("M3D", "M3D"), ("CTPROTOCOL", "CTPROTOCOL"), ("KO", "KO")]
)
def test_each_of_dicoms_modalities_may_be_said(tmp_path, stated, word):
    assert dataset_layouts.read_dataset(paired(tmp_path), DatasetOptions(modality=stated)).modality == word


@pytest.mark.parametrize("stated", ["MIR", "XYZ", "brain", ""])
def test_a_modality_that_is_none_is_refused_with_the_list(tmp_path, stated):
    with pytest.raises(UsageError, match=r"--modality .*is not a modality.*Choose one of MR, CT, PT.*RTSTRUCT"):
        dataset_layouts.read_dataset(paired(tmp_path), DatasetOptions(modality=stated))


@pytest.mark.parametrize("stated", ["retinal", "Nuclear Medicine", "pathology", "multi_modal"])
def test_a_word_for_several_modalities_is_refused_with_each_of_them(tmp_path, stated):
    with pytest.raises(UsageError, match=f"--modality {stated}: is not a modality, but a word for several. Use "):
        dataset_layouts.read_dataset(paired(tmp_path), DatasetOptions(modality=stated))


def test_a_word_for_several_modalities_is_none_for_one_and_its_remedy_names_several():
    for word, remedy in modality_words.SEVERAL.items():
        assert modality_words.modality_word(word) == modality_words.UNKNOWN_MODALITY
        named = {modality_words.modality_word(part.strip(",:")) for part in remedy.split()}
        assert len(named & modality_words.CODES) > 1


@pytest.mark.parametrize("labels", ["anterior,posterior", "1=a,1=b", "1=a,2=a", "-1=a", "1="])
def test_labels_that_cannot_be_understood_are_wrong_use(tmp_path, labels):
    with pytest.raises(UsageError, match="--labels"):
        dataset_layouts.read_dataset(paired(tmp_path), DatasetOptions(labels=labels))


def test_a_table_beside_the_images_gives_covariates_splits_and_patients(tmp_path):
    paired(tmp_path)
    rows = [f"x{n}.png,P{n // 2},{40 + n},{'train' if n < 2 else 'test'}" for n in range(4)]
    (tmp_path / "index.csv").write_text("\n".join(["filename,patient_id,age,split", *rows]))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.patient for case in dataset] == ["P0", "P0", "P1", "P1"]
    assert dataset.patients_known
    assert "index.csv" in dataset.patients
    assert dataset.cases[3].covariates == {"age": 43}
    assert dataset.splits == {"x0": "train", "x1": "train", "x2": "test", "x3": "test"}


def test_a_table_that_lacks_a_case_is_not_used_and_said_so(tmp_path):
    paired(tmp_path)
    (tmp_path / "index.csv").write_text("name,age\nx0,1\nx1,2\nx2,3\n")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert dataset.cases[0].covariates == {}
    assert dataset.problems[0].cases == ("x3",)


def test_a_row_that_stands_twice_is_one_and_rows_that_differ_are_said_to(tmp_path):
    rows = ["name,patient,split", *(f"x{n},P{n // 2},{'train' if n < 2 else 'test'}" for n in range(4))]
    (paired(tmp_path) / "index.csv").write_text("\n".join([*rows, rows[1], ",,train"]))
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert [case.patient for case in dataset] == ["P0", "P0", "P1", "P1"]
    assert set(dataset.splits.values()) == {"train", "test"}
    (tmp_path / "index.csv").write_text("\n".join([*rows, "x3,P1,train"]))
    [problem] = dataset_layouts.read_dataset(tmp_path).problems
    assert (problem.severity, problem.cases) == ("warning", ("x3",))
    assert "index.csv has several rows for 1 of 4 cases, which differ" in problem.what


def test_a_damaged_table_beside_the_images_is_not_used_and_said_so(tmp_path):
    paired(tmp_path)
    (tmp_path / "index.csv").write_bytes(b"\xff\xfe\x00\x01,\x80\n")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len(dataset) == 4
    assert "index.csv" in dataset.problems[0].what


def test_any_column_may_name_the_patient(tmp_path):
    paired(tmp_path)
    (tmp_path / "index.csv").write_text("name,owner\nx0,a\nx1,a\nx2,b\nx3,b\n")
    dataset = dataset_layouts.read_dataset(tmp_path, DatasetOptions(patient="owner"))
    assert [case.patient for case in dataset] == ["a", "a", "b", "b"]


def test_an_expression_may_name_the_patient(tmp_path):
    dataset = dataset_layouts.read_dataset(paired(tmp_path), DatasetOptions(patient=r"x([01]|[23])"))
    assert [case.patient for case in dataset] == ["0", "1", "2", "3"]
    assert dataset.patients_known
    with pytest.raises(UsageError, match="--patient"):
        dataset_layouts.read_dataset(tmp_path, DatasetOptions(patient="nobody"))


def count_cases_and_patients(path: Path, options: dict[str, object]) -> tuple[int, int, bool]:
    """How many cases and patients a set has, and whether the patients are known; it has no more than notes."""
    dataset = dataset_layouts.read_dataset(path, DatasetOptions(**options))
    assert not [problem for problem in dataset.problems if problem.severity != "note"]
    return len(dataset), len({case.patient for case in dataset}), dataset.patients_known


@pytest.mark.parametrize(
    ("place", "cases", "patients", "known"),
    [
        ("hippocampus", 60, 60, False),
        ("chest_xray", 7, 4, True),
        ("mri/cardiac_sunnybrook", 32, 2, True),
        ("dsb2018", 10, 10, False),
        ("histology", 5, 5, False),
        ("bccd", 16, 16, False),
        ("medmnist/pneumoniamnist.npz", 478, 478, False),
        ("medmnist/retinamnist.npz", 84, 84, False),
        ("medmnist/adrenalmnist3d.npz", 1584, 1584, False),
    ],
)
def test_cases_and_patients_of_shipped_sets_are_found(data, place, cases, patients, known):
    assert count_cases_and_patients(data / place, {}) == (cases, patients, known)


@pytest.mark.parametrize(
    ("place", "options", "cases", "patients", "known"),
    [
        ("hippocampus", {}, 200, 200, False),
        ("chest_xray", {}, 136, 70, True),
        ("chasedb1", {}, 20, 10, True),
        ("mri/cardiac_sunnybrook", {}, 526, 30, True),
        ("mri/lgg_flair", {}, 30, 30, True),
        ("mri/single_cases", {}, 3, 3, False),
        ("multimodal", {"column": {"label": "finding"}}, 92, 59, True),
        ("ultrasound", {}, 50, 50, False),
        ("dsb2018", {}, 120, 120, False),
        ("medmnist/pneumoniamnist.npz", {}, 5856, 5856, False),
        ("survival/clinical.csv", {"column": {"time": "Survival.time", "event": "deadstatus.event"}}, 300, 300, True),
    ],
)
def test_cases_and_patients_of_real_sets_are_found(corpus, place, options, cases, patients, known):
    assert count_cases_and_patients(corpus / place, options) == (cases, patients, known)


@pytest.mark.parametrize(("folder", "patients"), real_data.facts(shipped=2, corpus=30))
def test_patients_of_real_sets_do_not_depend_on_a_table(folder, patients, tmp_path):
    for place in ("images", "masks"):
        (tmp_path / place).mkdir()
        for path in sorted((folder / "mri" / "cardiac_sunnybrook" / place).iterdir()):
            (tmp_path / place / path.name).write_bytes(b"x")
    dataset = dataset_layouts.read_dataset(tmp_path)
    assert len({case.patient for case in dataset}) == patients
    assert "IM-" in dataset.patients


@pytest.mark.parametrize("above", ["COVID-CT", "data/COVID-CT"])
def test_a_folder_that_holds_all_as_of_an_unpacked_archive_is_opened(tmp_path, above):
    classed(tmp_path / "a" / above)
    (tmp_path / "a" / "README.txt").write_text("Unpacked.")
    inner = dataset_layouts.read_dataset(tmp_path / "a" / above)
    outer = dataset_layouts.read_dataset(tmp_path / "a")
    assert outer.kinds == {"class"}
    assert [(case.id, case.references["class"]) for case in outer] == [(c.id, c.references["class"]) for c in inner]
    for part in ("train", "test"):
        classed(tmp_path / "b" / above / part)
    assert set(dataset_layouts.read_dataset(tmp_path / "b").splits.values()) == {"train", "test"}
    for n in range(4):
        picture(tmp_path / "c" / above / "pictures" / f"a{n}.png", n)
    (tmp_path / "c" / above / "labels.csv").write_text("id,label\na0,x\na1,y\na2,x\na3,y\n")
    assert [case.references["class"] for case in dataset_layouts.read_dataset(tmp_path / "c")] == ["x", "y", "x", "y"]


def test_images_for_prediction_keep_the_names_of_their_folders(tmp_path):
    classed(tmp_path / "COVID-CT")
    ids = {case.id for case in dataset_layouts.read_dataset(tmp_path, DatasetOptions(references=False))}
    assert ids == {case.id for case in dataset_layouts.read_dataset(tmp_path / "COVID-CT")}


def test_images_with_targets_are_cases_also_for_a_model_that_may_lack_some_of_its_images(tmp_path):
    options = DatasetOptions(channels=2, absent=True)
    read = dataset_layouts.read_dataset(write_example(tmp_path, "image_targets"), options)
    assert [(case.id, *case.references) for case in read] == [("x0", "target"), ("x1", "target")]
