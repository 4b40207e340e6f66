"""What gives the class away is found, what does not is not, and what preprocessing takes away is gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from hilum.layouts import dataset_layouts
from hilum.quality import dataset_examination, shortcut_tests
from hilum.values import Case, Dataset, Estimate, Geometry, Image
from hilum.values.dataset_fingerprint import Shortcut
from matrices import thinned

Simulation = Callable[[int, bool, np.random.Generator], np.ndarray]


def plain(n: int, ill: bool, rng: np.random.Generator) -> np.ndarray:
    return rng.random((32, 32))


def cohort(simulate: Simulation, count: int = 80, images: int = 1, **covariates: Sequence) -> Dataset:
    """Every second patient is ill; `images` pictures of each."""
    cases = []
    for n in range(count):
        patient, rng = n // images, np.random.default_rng(n)
        pixels = simulate(n, patient % 2 == 1, rng)[None]
        extra = {name: values[n] for name, values in covariates.items()}
        label = {"class": "ill" if patient % 2 else "well"}
        image = Image(pixels, Geometry.of_pixels(pixels.shape[1:]))
        cases.append(Case(f"c{n}", f"p{patient}", {"image": image}, label, extra))
    return Dataset(tuple(cases), patients_known=True)


def standing(found: Sequence[Shortcut]) -> set[str]:
    return {one.name for one in found if one.standing}


def test_where_nothing_gives_the_class_away_nothing_is_found():
    found = dataset_examination.examine(cohort(plain, site=[n // 2 % 3 for n in range(80)]))
    assert {one.name for one in found.shortcuts} == {
        "image size", "aspect ratio", "border pixels", "corner pixels", "column site",
    }  # fmt: skip
    assert not standing(found.shortcuts)
    assert not found.problems


def test_a_site_that_sends_the_ill_is_found_and_cannot_be_taken_away():
    found = dataset_examination.examine(cohort(plain, site=["clinic" if n % 2 else "practice" for n in range(80)]))
    [site] = [one for one in found.shortcuts if one.standing]
    assert site.name == "column site"
    assert site.auc.value > 0.95
    assert site.p < 1e-4
    assert not site.removable
    remedies = [one.remedy for one in found.problems if "column site alone" in one.what]
    assert any("no longer goes with the label" in one for one in remedies)


def test_where_in_the_body_a_tumour_lies_is_no_scanner():
    where = ["left" if n % 2 else "right" for n in range(80)]
    found = dataset_examination.examine(cohort(plain, tumor_location=where, composition=where, ScannerModel=where))
    assert {one.name for one in found.shortcuts if one.name.startswith("column")} == {"column ScannerModel"}


def test_many_images_of_few_patients_are_not_many_witnesses():
    """Each patient has a scanner of his own: by image it tells all, by patient nothing."""
    found = dataset_examination.examine(cohort(plain, count=120, images=10, scanner=[n // 10 for n in range(120)]))
    assert "column scanner" not in standing(found.shortcuts)


def framed(n: int, ill: bool, rng: np.random.Generator) -> np.ndarray:
    pixels = rng.random((40, 40))
    if ill:
        pixels[:2] = pixels[-2:] = 3.0
    return pixels


def test_a_frame_is_found_and_is_gone_when_the_border_is_cut():
    found = dataset_examination.examine(cohort(framed))
    assert "border pixels" in standing(found.shortcuts)
    assert all(one.removable and one.setting == "border" for one in found.shortcuts if one.standing)
    assert not standing(dataset_examination.retest_shortcuts(found, border=0.08))
    assert "border pixels" in standing(dataset_examination.retest_shortcuts(found, border=0.0))


@pytest.mark.parametrize(("shape", "place"), [((40, 40), slice(14, 26)), ((20, 20, 20), slice(7, 13))])
@pytest.mark.parametrize("brightness", thinned(1, [3.0, 100.0, -3.0]))
def test_a_lesion_in_the_middle_gives_nothing_away_at_the_border(shape, place, brightness):
    def with_lesion(n: int, ill: bool, rng: np.random.Generator) -> np.ndarray:
        pixels = rng.random(shape)
        if ill:
            pixels[(place,) * len(shape)] += brightness
        return pixels

    tried = {one.name: one for one in dataset_examination.examine(cohort(with_lesion)).shortcuts}
    for name in ("border pixels", "corner pixels"):
        assert tried[name].auc.value < 0.7
        assert not tried[name].standing


def around(pixels: np.ndarray, value: np.ndarray | float) -> np.ndarray:
    """With a frame of 6 % of the sides."""
    framed = np.broadcast_to(value, pixels.shape).copy()
    framed[6:-6, 8:-8] = pixels[6:-6, 8:-8]
    return framed


def darker_outside(pixels: np.ndarray) -> np.ndarray:
    down, right = np.meshgrid(*(np.linspace(-1, 1, size) for size in pixels.shape), indexing="ij")
    return pixels * (1 - 0.3 * (down**2 + right**2))


def with_letter(pixels: np.ndarray) -> np.ndarray:
    marked = pixels.copy()
    marked[2:10, 3:6], marked[7:10, 3:12] = 1.0, 1.0  # a fat L
    return marked


AT_THE_BORDER: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "a white frame": lambda pixels, rng: around(pixels, 1.0),
    "a black frame": lambda pixels, rng: around(pixels, 0.0),
    "a grey frame as bright as tissue": lambda pixels, rng: around(pixels, 0.5),
    "a black frame with noise": lambda pixels, rng: around(pixels, rng.normal(0.1, 0.02, pixels.shape)),
    "a band on the left": lambda pixels, rng: np.concatenate([np.ones((96, 8)), pixels[:, 8:]], axis=1),
    "dark corners": lambda pixels, rng: darker_outside(pixels),
    "a letter in a corner": lambda pixels, rng: with_letter(pixels),
}


@pytest.mark.parametrize("made", thinned(1, AT_THE_BORDER.values()), ids=AT_THE_BORDER)
def test_what_lies_at_the_border_is_found_whatever_lies_inside(made):
    def simulated(n: int, ill: bool, rng: np.random.Generator) -> np.ndarray:
        pixels = textured(n, ill, rng)
        if n % 3:  # a lesion, as often of the well as of the ill
            pixels[36:60, 52:76] += 2.0
        return made(pixels, rng) if ill else pixels

    found = dataset_examination.examine(cohort(simulated)).shortcuts
    assert {"border pixels", "corner pixels"} & standing(found)


def test_a_training_knows_the_shortcuts_to_what_it_predicts_alone():
    """Masks are not told by a frame around pictures of the ill: no border is cut away for them."""
    dataset = cohort(framed)
    square = np.zeros((1, 40, 40), dtype=np.uint8)
    square[0, 10:20, 10:20] = 1
    mask = Image(square, Geometry.of_pixels((40, 40)))
    both = replace(dataset, cases=tuple(replace(one, references={**one.references, "mask": mask}) for one in dataset))
    found = dataset_examination.examine(both)
    assert "border pixels" in standing(found.shortcuts)
    classes, masks = (found.of_task(both, frozenset({kind})) for kind in ("class", "mask"))
    assert "border pixels" in standing(classes.shortcuts) and "border pixels" in standing(
        dataset_examination.retest_shortcuts(classes)
    )
    assert (masks.shortcuts, dataset_examination.retest_shortcuts(masks), masks.unmeasured) == ((), (), ())


def long(n: int, ill: bool, rng: np.random.Generator) -> np.ndarray:
    return rng.random((60, 40 + 20 * ill + int(rng.integers(3))))


def test_an_aspect_ratio_is_found_and_is_gone_when_all_are_cut_to_one():
    found = dataset_examination.examine(cohort(long))
    assert {"aspect ratio", "image size"} <= standing(found.shortcuts)
    assert "aspect ratio" in standing(dataset_examination.retest_shortcuts(found, aspect="stretch", shape=(32, 32)))
    assert not standing(dataset_examination.retest_shortcuts(found, aspect="crop", shape=(32, 32)))


@pytest.mark.whole
def test_small_images_that_are_stretched_to_the_networks_shape_stay_known():
    found = dataset_examination.examine(cohort(lambda n, ill, rng: rng.random((24 + 40 * ill,) * 2)))
    assert "image size" in standing(dataset_examination.retest_shortcuts(found, aspect="crop", shape=(64, 64)))
    assert "image size" not in standing(dataset_examination.retest_shortcuts(found, aspect="crop", shape=(24, 24)))


def test_only_the_given_cases_are_looked_at():
    mixed = cohort(lambda n, ill, rng: (long if n < 40 else plain)(n, ill, rng))
    found = dataset_examination.examine(mixed)
    assert not standing(dataset_examination.retest_shortcuts(found, ids={f"c{n}" for n in range(40, 80)}))
    assert standing(dataset_examination.retest_shortcuts(found, ids={f"c{n}" for n in range(40)}))


def test_the_sets_own_test_part_is_not_looked_at():
    mixed = cohort(lambda n, ill, rng: (plain if n < 40 else long)(n, ill, rng))
    parts = {f"c{n}": "train" if n < 40 else "test" for n in range(80)}
    assert (
        not dataset_examination.examine(Dataset(mixed.cases, splits=parts, patients_known=True)).shortcuts[0].standing
    )


def test_with_few_patients_of_a_class_nothing_is_claimed_and_that_is_said():
    found = dataset_examination.examine(cohort(long, count=8))
    assert found.shortcuts == ()
    [few] = found.unmeasured
    assert "the classes can be told apart by a shortcut is not measurable with 8 patients: it takes 5" in few
    [unknown] = dataset_examination.examine(replace(cohort(long, count=8), patients_known=False)).unmeasured
    assert "is not measurable with 8 cases: it takes 5 cases of each" in unknown


def test_of_enough_patients_nothing_is_left_unmeasured():
    assert not dataset_examination.examine(cohort(plain)).unmeasured


def test_what_was_found_stands_after_preprocessing_until_it_is_shown_to_be_gone():
    found = [replace(shortcut("border pixels", 0.95), standing=True), replace(shortcut("spacing", 0.9), standing=True)]
    gone, weak = shortcut("border pixels", 0.55), shortcut("border pixels", 0.9)
    assert standing(shortcut_tests.standing_shortcuts(found, [gone])) == {
        "spacing"
    }  # which could not be measured again
    assert standing(shortcut_tests.standing_shortcuts(found, [weak, shortcut("spacing", 0.5)])) == {"border pixels"}


@pytest.mark.whole
def test_that_nothing_is_to_be_done_stands_once_for_all_that_the_plan_tries_to_remove():
    removable, site = (replace(shortcut("", 0.9), standing=True, p=0.001, removable=one) for one in (True, False))
    given = [replace(removable, name="border pixels"), replace(site, name="column site"),
             replace(removable, name="image size")]  # fmt: skip
    later = "Nothing to do yet: the plan tries to remove these 2, and the report states whether that helped"
    remedies = [one.remedy for one in shortcut_tests.shortcut_problems(given)]
    instead = "Choose cases so that it no longer goes with the label, or report results for its values separately"
    assert remedies == [later, instead, ""]
    [only] = shortcut_tests.shortcut_problems(given[:1])
    assert only.remedy == later.replace("these 2", "it")


def shortcut(name: str, auc: float) -> Shortcut:
    """As of cases too few for a small p."""
    return Shortcut(name, Estimate(auc, n=40), 0.2, False, False)


def test_letters_and_small_patches_are_found_wherever_they_lie_and_said_with_their_place():
    for down, right, side, value in ((50, 70, 6, 1.0), (20, 10, 8, 0.0), (3, 100, 6, 1.0)):

        def marked(n, ill, rng, at=(down, right), side=side, value=value):
            pixels = textured(n, ill, rng)
            if ill:
                pixels[at[0] : at[0] + side, at[1] : at[1] + side] = value
            return pixels

        [found] = [
            one for one in dataset_examination.examine(cohort(marked, count=40)).shortcuts if one.name == "small mark"
        ]
        assert found.standing and found.auc.value > 0.9
        left, top = (float(text) for text in re.findall(r"(\d+) %", found.where))
        assert found.where.partition(",")[0] in ("even", "bright" if value else "dark")
        assert abs(left - 100 * (right + side / 2) / 128) < 5
        assert abs(top - 100 * (down + side / 2) / 96) < 5


def textured(n: int, ill: bool, rng: np.random.Generator) -> np.ndarray:
    """Between 0.2 and 0.8, smooth as tissue."""
    rough = ndimage.gaussian_filter(rng.normal(size=(96, 128)), 2)
    return (0.5 + 0.1 * rough / rough.std()).clip(0.2, 0.8)


def test_a_disease_that_is_everywhere_in_the_picture_is_no_mark():
    """Spots at many places: each of them tells the class, none better than the others."""

    def spotted(n, ill, rng):
        pixels = textured(n, ill, rng)
        if ill:
            pixels[8::12, 8::12] = 1.0
        return pixels

    assert "small mark" not in {one.name for one in dataset_examination.examine(cohort(spotted, count=40)).shortcuts}


@pytest.mark.whole
def test_a_mark_at_the_margin_is_gone_when_that_is_cut_away():
    def marked(n, ill, rng):
        pixels = textured(n, ill, rng)
        if ill:
            pixels[40:46, 1:7] = 1.0
        return pixels

    found = dataset_examination.examine(cohort(marked, count=40))
    [mark] = [one for one in found.shortcuts if one.name == "small mark"]
    assert mark.standing and mark.removable and mark.setting == "border"
    assert "small mark" not in standing(dataset_examination.retest_shortcuts(found, border=0.1))


@pytest.mark.whole
def test_a_mark_is_found_in_a_list_of_pairs_too_long_for_all_pictures_to_be_kept(monkeypatch):
    """Every second case is ill: of every second picture alone nothing could be told."""

    def marked(n: int, ill: bool, rng: np.random.Generator) -> np.ndarray:
        pixels = textured(n, ill, rng)
        if ill:
            pixels[40:46, 50:56] = 1.0
        return pixels

    monkeypatch.setattr("hilum.quality.dataset_examination.MOST_PICTURES", 40)
    found = dataset_examination.examine(cohort(marked))
    assert sum(look.patches is not None for look in found.looks.values()) == 40
    assert "small mark" in standing(found.shortcuts)


@pytest.mark.whole
def test_volumes_have_faces_and_spacings():
    def volume(n: int) -> Case:
        grid = Geometry((10, 10, 6), np.diag([1.0, 1.0, 2.0 + 2 * (n % 2), 1.0]))
        image = Image(np.random.default_rng(n).random((1, *grid.shape)), grid)
        return Case(f"c{n}", f"p{n}", {"image": image}, {"class": "ab"[n % 2]})

    found = dataset_examination.examine(Dataset(tuple(volume(n) for n in range(60)), patients_known=True)).shortcuts
    assert standing(found) == {"spacing"}
    assert {"border pixels", "corner pixels"} <= {one.name for one in found}


def answering(answer: Callable[[int], dict], simulate: Simulation = plain, **covariates: Sequence) -> Dataset:
    """Eighty patients with references of another kind than a class."""
    dataset = cohort(simulate, **covariates)
    cases = tuple(replace(case, references=answer(n)) for n, case in enumerate(dataset))
    return replace(dataset, cases=cases)


def test_a_site_that_sends_one_finding_is_told_of_that_finding_alone():
    sites = ["clinic" if n % 2 else "practice" for n in range(80)]
    found = dataset_examination.examine(
        answering(lambda n: {"findings": {"mass": n % 2 == 1, "scar": n % 3 == 0}}, site=sites)
    )
    standing = {(one.what, one.name) for one in found.shortcuts if one.standing}
    assert standing == {("finding mass can be told", "column site")}
    assert any(one.what.startswith("finding mass can be told by column site alone: AUC 1.00") for one in found.problems)


@pytest.mark.parametrize(
    ("answer", "what"),
    thinned(
        1,
        [
            (lambda n: {"value": {"age": 50.0 + 20 * (n % 2) + n % 7}}, "age can be told"),
            (lambda n: {"event": (100.0 + 400 * (n % 2) + n % 13, n % 5 > 0)}, "times to the event can be told"),
        ],
    ),
)
def test_a_frame_that_tells_a_value_or_a_time_is_said_and_never_cut_away(answer, what):
    found = dataset_examination.examine(answering(answer, framed))
    [border] = [one for one in found.shortcuts if one.name == "border pixels"]
    assert (border.what, border.figure, border.standing, border.removable) == (what, "c", True, False)
    assert any(f"{what} by border pixels alone: c 0." in one.what for one in found.problems)
    assert not standing(dataset_examination.examine(answering(answer)).shortcuts)


@pytest.mark.whole
def test_of_few_events_nothing_is_claimed():
    assert dataset_examination.examine(answering(lambda n: {"event": (100.0 + n, n % 8 == 0)}, framed)).shortcuts == ()


@pytest.fixture(scope="module")
def radiographs(corpus: Path):
    dataset = dataset_layouts.read_dataset(corpus / "chest_xray")
    small = [
        Case(one.id, one.patient, {"image": _halved(next(iter(one.images.values())))}, one.references)
        for one in dataset
    ]
    return dataset_examination.examine(Dataset(tuple(small), patients_known=True), threads=2)


def _halved(image: Image) -> Image:
    """Every fourth row and column of the first channel: enough for sizes and borders."""
    pixels = image.data[:1, ::4, ::4]
    return Image(pixels, Geometry.of_pixels(pixels.shape[1:]))


@pytest.mark.whole
def test_the_size_and_aspect_of_the_radiographs_tell_pneumonia(radiographs):
    found = {one.name: one for one in radiographs.shortcuts}
    for name in ("image size", "aspect ratio"):
        # The set's own description measured an AUC of about 0.83 for each.
        assert found[name].auc.low < 0.83 < found[name].auc.high
        assert found[name].standing


@pytest.mark.whole
def test_cut_to_one_aspect_the_radiographs_sizes_tell_nothing(radiographs):
    left = {one.name: one for one in dataset_examination.retest_shortcuts(radiographs, aspect="crop", shape=(64, 64))}
    assert not left["aspect ratio"].standing


@pytest.mark.parametrize("places", [(1, 101, 203, 303, 353, 405), (0, 1, 2, 3, 4, 5)])
@pytest.mark.whole
def test_a_rare_finding_among_many_is_not_lost_where_cases_are_left_out(places):
    rng = np.random.default_rng(0)
    cases = []
    for n in range(430):
        size = (12, 8) if n in places else (8, 8)
        image = Image(rng.random((1, *size)).astype(np.float32), Geometry.of_pixels(size))
        findings = {f"f{k}": bool(rng.random() < 0.2) for k in range(14)} | {"rare": n in places}
        cases.append(Case(f"c{n}", f"p{n}", {"image": image}, {"findings": findings}))
    found = dataset_examination.examine(Dataset(tuple(cases), patients_known=True))
    told = [one for one in found.shortcuts if "rare" in one.what and one.name == "image size"]
    assert [round(one.auc.value, 2) for one in told] == [1.0]
