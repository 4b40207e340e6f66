from __future__ import annotations

import weakref
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import deadly
from hilum.errors import FormatError
from hilum.quality import dataset_examination
from hilum.runtime.parallel import map_cases
from hilum.values import Case, Dataset, Geometry, Image, Label, LazyMapping

GRID = Geometry((4, 5, 6), np.diag([1.0, 1.0, 2.0, 1.0]))


def image(seed: int = 0, grid: Geometry = GRID, pixels: np.ndarray | None = None, **named: object) -> Image:
    noise = np.random.default_rng(seed).normal(size=(1, *grid.shape)).astype(np.float32)
    return Image(noise if pixels is None else pixels, grid, **named)


def mask(value: int = 1, grid: Geometry = GRID) -> Image:
    mask = np.zeros((1, *grid.shape), np.uint8)
    mask[:, 1:3, 1:3] = value
    return Image(mask, grid)


def case(n: int, picture: Image | None = None, reference: Image | None = None) -> Case:
    return Case(f"c{n}", f"p{n}", {"image": picture or image(n)}, {"mask": reference or mask()})


def cohort(*cases: Case, **named: object) -> Dataset:
    return Dataset(tuple(cases) or tuple(case(n) for n in range(4)), **{"patients_known": True, **named})


def findings(dataset: Dataset, severity: str | None = None) -> list[str]:
    return [one.what for one in dataset_examination.examine(dataset).problems if severity in (None, one.severity)]


def test_nothing_is_found_about_a_set_in_which_nothing_is_wrong():
    found = dataset_examination.examine(cohort(), threads=2)
    assert not found.problems
    assert not found.fatal
    assert len(found.dataset) == len(found.fingerprint) == 4


def test_the_facts_of_a_case_are_those_of_its_voxels():
    [facts] = dataset_examination.examine(cohort(case(3))).fingerprint.cases
    data = image(3).data
    assert facts.shape == (4, 5, 6)
    assert facts.steps == (1.0, 1.0, 2.0)
    assert facts.intensity[0]["mean"] == pytest.approx(float(data.mean()), abs=1e-6)
    assert facts.intensity[0]["deviation"] == pytest.approx(float(data.std()), rel=1e-5)
    assert facts.intensity[0]["max"] == pytest.approx(float(data.max()))
    assert facts.references == {"mask": {0: 120 - 24, 1: 24}}


def test_a_voxel_under_a_tilted_gantry_holds_less_than_its_edges_multiplied():
    tilted = Geometry((4, 5, 6), [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    [facts] = dataset_examination.examine(cohort(case(0, image(0, tilted), mask(1, tilted)))).fingerprint.cases
    assert facts.voxel_volume == pytest.approx(2)
    assert np.prod(facts.steps) == pytest.approx(5**0.5)
    unknown = replace(GRID, physical=False)
    [facts] = dataset_examination.examine(cohort(case(0, image(0, unknown), mask(1, unknown)))).fingerprint.cases
    assert facts.voxel_volume is None


def test_a_case_that_cannot_be_read_is_named_and_the_rest_goes_on():
    def broken() -> Image:
        raise FormatError("is cut short", "c9.nii.gz", "Get it again")

    bad = Case("c9", "p9", LazyMapping({"image": broken}), {"mask": mask()})
    found = dataset_examination.examine(cohort(case(0), bad, case(1)))
    assert [one.id for one in found.dataset] == ["c0", "c1"]
    [problem] = found.problems
    assert (problem.severity, problem.cases, problem.remedy) == ("error", ("c9",), "Get it again")
    assert "c9.nii.gz" in problem.what
    assert not found.fatal


def test_a_mask_on_another_grid_leaves_its_case_out():
    moved = Geometry(GRID.shape, GRID.affine + np.diag([0.0, 0.0, 0.5], k=1))
    found = dataset_examination.examine(cohort(case(0), case(1, reference=mask(grid=moved))))
    assert [one.id for one in found.dataset] == ["c0"]
    assert found.problems[0].what == "mask and image lie on different grids: the first is shifted by 0.5 mm to S"
    assert "copy that of the image" in found.problems[0].remedy


def test_a_mask_that_lacks_slices_is_told_how_many_and_what_to_do():
    short = dataset_examination.examine(cohort(case(0), case(1, reference=mask(grid=Geometry((4, 5, 3), GRID.affine)))))
    assert [one.id for one in short.dataset] == ["c0"]
    assert short.problems[0].what.endswith("the first lacks 3 slices along the third axis")
    assert "as background" in short.problems[0].remedy


def test_a_mask_a_hair_off_its_image_is_on_its_grid():
    hair = Geometry(GRID.shape, GRID.affine + np.diag([0.0, 0.0, 0.0005], k=1))
    assert len(dataset_examination.examine(cohort(case(0, reference=mask(grid=hair)))).dataset) == 1


def test_what_was_not_measured_enters_no_statistic():
    pixels = image(0).data.copy()
    pixels[0, 0] = np.nan
    found = dataset_examination.examine(cohort(case(0, image(pixels=pixels))))
    assert "not finite" in found.problems[0].what
    assert found.fingerprint.cases[0].intensity[0]["mean"] == pytest.approx(float(pixels[0, 1:].mean()), abs=1e-6)


def test_an_image_without_a_single_measurement_is_left_out():
    found = dataset_examination.examine(
        cohort(case(0), case(1, image(pixels=np.full((1, *GRID.shape), np.nan, np.float32))))
    )
    assert [one.id for one in found.dataset] == ["c0"]
    assert "holds no measurement" in found.problems[0].what


def test_a_constant_image_and_an_empty_mask_are_said():
    blank = image(pixels=np.ones((1, *GRID.shape), np.float32))
    assert findings(cohort(case(0, blank), case(1)), "warning") == ["channel '0' is constant"]
    half_empty = cohort(case(0, reference=mask(0)), case(1))
    assert findings(half_empty, "note") == ["the value 1 is absent in 1 of 2 masks (50 %)"]


def test_a_value_without_label_forbids_training():
    dataset = cohort(case(0), case(1, reference=mask(5)), classes={"mask": (Label(1, "one"),)})
    [fatal] = dataset_examination.examine(dataset).fatal
    assert fatal.what == "masks hold values without a label: 5"
    assert fatal.cases == ("c1",)
    assert "--labels" in fatal.remedy


def test_a_patient_on_both_sides_of_the_sets_own_split_forbids_training():
    dataset = cohort(splits={"c0": "train", "c1": "test", "c2": "train", "c3": "test"})
    shared = replace(dataset, cases=tuple(replace(one, patient="p0") if one.id == "c1" else one for one in dataset))
    assert not dataset_examination.examine(dataset).fatal
    [fatal] = dataset_examination.examine(shared).fatal
    assert "1 patient is in more than one part" in fatal.what
    assert set(fatal.cases) == {"c0", "c1"}


def test_unknown_patients_are_said():
    assert any("patients are not known" in what for what in findings(cohort(patients_known=False), "warning"))


def test_pictures_among_volumes_forbid_training():
    flat = Case("flat", "flat", {"image": image(grid=Geometry.of_pixels((4, 5)))}, {})
    assert "some images have two axes and some three" in [
        one.what for one in dataset_examination.examine(cohort(case(0), flat)).fatal
    ]


def test_a_set_without_a_usable_case_forbids_training():
    empty = case(0, image(pixels=np.full((1, *GRID.shape), np.nan, np.float32)))
    [fatal] = dataset_examination.examine(cohort(empty)).fatal
    assert fatal.what == "no case can be used; the first: c0: channel '0' holds no measurement"
    assert fatal.remedy == "Leave it out"


def test_a_table_alone_says_which_columns_it_has_and_how_to_name_that_of_the_images():
    single = [Case(f"p{n}", f"p{n}", {}, {"class": "a"}, covariates={"age": 40 + n}) for n in range(3)]
    found = dataset_examination.examine(cohort(*single, columns={"label": "state"}))
    [problem] = found.fatal
    assert problem.what == "no case has an image (columns: state, age)"
    assert problem.remedy == "Name theirs, as in --column image=COLUMN"


def test_a_case_without_images_is_left_out_by_name():
    bare = Case("bare", "bare", {}, {"mask": mask()})
    found = dataset_examination.examine(cohort(case(0), bare, case(1)))
    assert not found.fatal
    assert [one.id for one in found.fingerprint.cases] == ["c0", "c1"]
    assert [problem.what for problem in found.problems if problem.cases == ("bare",)] == ["has no image"]


def test_the_same_fault_of_many_files_is_said_once_with_the_first_of_them():
    def broken(number: int) -> Image:
        raise FormatError("a mask in colours" if number else "is cut short", f"masks/c{number}.png", "Save it anew")

    bad = [Case(f"c{n}", f"p{n}", LazyMapping({"image": partial(broken, n)}), {"mask": mask()}) for n in range(6)]
    found = dataset_examination.examine(cohort(*bad, case(6), case(7))).problems
    assert [(one.what, one.cases) for one in found] == [
        ("masks/c0.png: is cut short", ("c0",)),
        ("a mask in colours, as in masks/c1.png", ("c1", "c2", "c3", "c4", "c5")),
    ]


def test_faults_that_differ_only_in_their_numbers_are_one_with_the_first_few_and_a_count():
    def short(number: int) -> Image:
        raise FormatError(f"holds {number} of 90 rows", f"c{number}.png", "Get it again")

    bad = [Case(f"c{n}", f"p{n}", LazyMapping({"image": partial(short, n)}), {"mask": mask()}) for n in range(10, 16)]
    grids = (Geometry((4, 5, 20 + n), GRID.affine) for n in range(4))
    apart = [Case(f"d{n}", f"q{n}", {"image": image(n)}, {"mask": mask(grid=grid)}) for n, grid in enumerate(grids)]
    whole = [case(n) for n in range(3)]
    found = [
        one for one in dataset_examination.examine(cohort(*bad, *apart, *whole)).problems if one.severity == "error"
    ]
    assert [(one.what, len(one.cases)) for one in found] == [
        ("holds 10 of 90 rows; 11 of 90 rows; 12 of 90 rows; and 3 more, as in c10.png", 6),
        (
            "mask and image lie on different grids: 4 x 5 x 20 and 4 x 5 x 6 voxels; 4 x 5 x 21 and 4 x 5 x 6 voxels; "
            "4 x 5 x 22 and 4 x 5 x 6 voxels; and 1 more",
            4,
        ),
    ]


def test_warnings_that_differ_only_in_their_numbers_are_one_unless_they_are_of_other_names():
    def damaged(n: int, name: str) -> Case:
        values = image(n).data[0].astype(np.float32)
        values.ravel()[: n + 1] = np.nan
        return case(n, Image(values[None], GRID, channels=(name,)))

    found = dataset_examination.examine(cohort(*(damaged(n, "T1") for n in range(6)))).problems
    [broken] = [one for one in found if "not finite" in one.what]
    assert (
        broken.what == "channel 'T1' has 1 voxels that are not finite; 2 voxels that are not finite; "
        "3 voxels that are not finite; and 3 more"
    )
    assert broken.cases == tuple(f"c{n}" for n in range(6))
    names = [f"T{1 + n % 2}" for n in range(6)]
    found = dataset_examination.examine(cohort(*(damaged(n, name) for n, name in enumerate(names)))).problems
    assert len([one for one in found if "not finite" in one.what]) == 6


def test_what_many_cases_have_is_said_once():
    other = Geometry((4, 5, 3), np.diag([1.0, 1.0, 4.0, 1.0]))
    two = [Case(f"c{n}", f"p{n}", {"T1": image(n), "T2": image(n, other)}, {"mask": mask()}) for n in range(3)]
    found = dataset_examination.examine(cohort(*two, *(case(n) for n in (3, 4))))
    [problem] = [one for one in found.problems if "another grid" in one.what]
    assert problem.cases == ("c0", "c1", "c2")
    assert "--align" in problem.remedy


def test_what_readers_decided_is_a_note_that_all_images_with_it_share():
    apart = [image(n, notes=(f"sform and qform lie {n}.5 voxels apart; sform used.",)) for n in range(3)]
    two = Case("c3", "p3", {"a": image(3), "b": image(4, notes=("no unit is stated",))}, {"mask": mask()})
    found = dataset_examination.examine(cohort(*(case(n, one) for n, one in enumerate(apart)), two)).problems
    notes = [one for one in found if one.severity == "note"]
    assert [(one.what, one.cases) for one in notes] == [
        ("sform and qform lie 0.5 voxels apart; sform used", ("c0", "c1", "c2")),
        ("no unit is stated", ("c3",)),
    ]


def test_notes_that_differ_in_the_names_of_their_files_are_one():
    words = "1 of 4 slices ({}.dcm) does not state WindowCenter (0028,1050), which the others do"
    apart = [image(n, notes=(words.format(name),)) for n, name in enumerate(("left", "right", "lower"))]
    found = dataset_examination.examine(cohort(*(case(n, one) for n, one in enumerate(apart)), case(3))).problems
    [note] = [one for one in found if one.severity == "note"]
    assert (note.what, note.cases) == (words.format("left"), ("c0", "c1", "c2"))


def test_progress_is_told_case_by_case():
    progress: list[tuple[int, int]] = []
    dataset_examination.examine(cohort(), progress=lambda done, total: progress.append((done, total)))
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_case_with_other_channels_than_the_rest_forbids_training():
    def with_channels(n, *names):
        return Case(f"c{n}", f"p{n}", {name: image(n) for name in names}, {"mask": mask()})

    found = dataset_examination.examine(
        cohort(*(with_channels(n, "T1", "T2") for n in range(3)), with_channels(3, "T2", "T1"))
    )
    [fatal] = found.fatal
    assert "(T2, T1) than the rest (T1, T2)" in fatal.what
    assert fatal.cases == ("c3",)


def test_grey_pictures_beside_coloured_ones_are_no_fault():
    grid = Geometry.of_pixels((4, 5))
    rng = np.random.default_rng(0)

    def picture(n, *names):
        return case(n, Image(rng.random((len(names), 4, 5)), grid, channels=names), mask(grid=grid))

    both = cohort(picture(0, "0"), picture(1, "R", "G", "B"), picture(2, "R", "G", "B", "A"), picture(3, "0", "A"))
    assert not dataset_examination.examine(both).fatal


def test_a_case_over_which_a_process_dies_is_left_out_and_the_rest_goes_on(tmp_path):
    fatal = Case("fatal", "p9", LazyMapping({"image": partial(deadly.crashes, "SIGSEGV")}), {"mask": mask()})
    with map_cases.spread_over(partial(map_cases.map_in_workers, 1)):
        found = dataset_examination.examine(cohort(*(case(n) for n in range(3)), fatal))
    assert [one.id for one in found.dataset] == ["c0", "c1", "c2"]
    [problem] = [one for one in found.problems if one.severity == "error"]
    assert problem.cases == ("fatal",)
    assert "crashed (SIGSEGV)" in problem.what


def test_frames_that_nobody_declared_leave_their_case_out_and_moments_do_not():
    """What a fourth axis means must be known: moments have times."""
    frames = np.random.default_rng(0).normal(size=(1, 3, *GRID.shape))
    whole = [Case(f"c{n}", f"p{n}", {"image": image(pixels=frames + n, times=times)}, {"class": "ab"[n]})
             for n, times in enumerate([(0.0, 0.1, 0.2), None])]  # fmt: skip
    found = dataset_examination.examine(Dataset(tuple(whole)))
    assert [one.id for one in found.dataset] == ["c0"]
    assert found.fingerprint.cases[0].frames == 3
    assert "3 frames on a fourth axis" in " ".join(findings(Dataset(tuple(whole)), "error"))


def test_one_mask_for_all_frames_leaves_its_case_out():
    clip = image(pixels=np.random.default_rng(0).normal(size=(1, 3, *GRID.shape)), times=(0.0, 0.1, 0.2))
    problems = findings(cohort(case(0, clip), case(1)), "error")
    assert any("mask has no frames, the image 3" in problem for problem in problems)


def test_patches_of_pictures_are_kept_only_where_an_answer_could_be_given_away():
    """They take as long as all else; a mask is no answer of the image as a whole."""
    pixels, grid = (
        np.random.default_rng(0).normal(100, 9, (1, 64, 64)).astype(np.float32),
        Geometry((64, 64), np.eye(3)),
    )
    image, mask = Image(pixels, grid), Image(np.ones((1, 64, 64), np.uint8), grid)
    for references, kept in (({"class": "ill"}, True), ({"mask": mask}, False)):
        [look] = dataset_examination.examine(Dataset((Case("a", "a", {"image": image}, references),))).looks.values()
        assert (look.patches is not None) == kept


def test_patches_of_pictures_that_are_not_compared_are_held_no_longer_than_their_picture(monkeypatch):
    monkeypatch.setattr("hilum.quality.dataset_examination.MOST_PICTURES", 2)
    grid = Geometry((64, 64), np.eye(3))
    pixels = np.random.default_rng(0).normal(100, 9, (10, 1, 64, 64)).astype(np.float32)
    cases = tuple(Case(f"{n}", f"{n}", {"image": Image(one, grid)}, {"class": "ill"}) for n, one in enumerate(pixels))
    made, held = [], []

    def one_by_one(measured, items):
        for number, item in enumerate(items):
            outcome = measured(item)
            made.append(weakref.ref(outcome.outcome[0][1].patches))
            held.append(sum(one() is not None for one in made))
            yield number, outcome

    with map_cases.spread_over(one_by_one):
        dataset_examination.examine(Dataset(cases))
    assert len(held) == 10
    assert max(held) <= 4  # the first and the sixth, the last one and the one before it


def test_the_size_of_the_content_has_the_axes_of_the_case_whatever_their_order_in_the_file():
    voxels = np.zeros((1, 12, 10, 8), dtype=np.float32)
    voxels[0, 2:9, 3:8, 1:4] = 1.0
    turned = np.array([[0.0, 0, -1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # its last axis runs to the left
    image = Image(voxels, Geometry((12, 10, 8), turned))
    [facts] = dataset_examination.examine(Dataset((Case("a", "a", {"image": image}),))).fingerprint.cases
    assert (facts.shape, facts.content_shape) == ((8, 12, 10), (3, 7, 5))
    assert facts.content == pytest.approx(3 * 7 * 5 / (8 * 12 * 10))
