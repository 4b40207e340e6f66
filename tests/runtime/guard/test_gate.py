"""What a gate refuses, and how often it is wrong, worked out on random numbers."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load
from scipy import stats

from hilum.errors import IntegrityError
from hilum.runtime import model_record
from hilum.runtime.guard import case_distances, image_gate, image_observation
from hilum.runtime.guard.case_distances import KnownDistances
from hilum.runtime.guard.gate_state import CUT, LIMITS
from hilum.runtime.guard.image_gate import Answering, Guard
from hilum.runtime.guard.image_observation import Observation
from hilum.runtime.model_parts import ModelParts
from hilum.values import Geometry, Image, Prediction
from matrices import only, thinned

LEVEL = 0.01


def image(shape=(20, 24, 18), spacing=1.0, modality="MR") -> Image:
    geometry = Geometry(shape, np.diag([spacing, spacing, spacing, 1.0]))
    return Image(np.zeros((1, *shape), np.float32), geometry, modality=modality)


def seen(rng: np.random.Generator, *, shift: float = 0.0, off: float = 0.0, of: Image | None = None) -> Observation:
    """An observation of 8 correlated features; shift: of intensities, off: of features in every direction."""
    shape = tuple(int(n) for n in rng.integers(18, 26, 3))
    mixing = np.random.default_rng(1).normal(size=(3, 8))
    features = rng.normal(size=3) @ mixing + 0.1 * rng.normal(size=8) + off
    sample = rng.normal(shift, [[1.0], [4.0]], size=(2, 2000)).astype(np.float32)
    return Observation(
        image_observation.header_facts(of or image(shape)),
        sample,
        image_observation.window_composition(sample),
        features,
    )


def gate(seed: int = 0, trained: int = 60, held_out: int = 40, level: float = LEVEL, exact: bool = True) -> Guard:
    rng = np.random.default_rng(seed)
    made = image_gate.fit_guard(
        [seen(rng) for _ in range(trained)], [seen(rng) for _ in range(held_out)], level, exact=exact
    )
    assert made is not None
    return made


def each_a_patient(distances: np.ndarray) -> KnownDistances:
    return KnownDistances.from_distances(distances.tolist(), [""] * len(distances))


@pytest.mark.parametrize(("count", "smallest"), [(30, 0.9), (400, 0.0025)])
def test_p_values_of_cases_like_those_that_did_not_train_are_uniform(count, smallest):
    rng = np.random.default_rng(0)
    p_values = [
        case_distances.p_value(rng.gamma(4.0), each_a_patient(rng.gamma(4.0, size=count)), smallest)
        for _ in range(2000)
    ]
    assert stats.kstest(np.array(p_values) - rng.uniform(size=2000) / (count + 1), "uniform").pvalue > 0.001


@pytest.mark.parametrize("count", thinned(1, [8, 60]))
def test_the_extrapolated_tail_is_exact_for_exponential_excesses_and_errs_upwards_for_lighter_ones(count):
    rng, draws = np.random.default_rng(1), 4000
    exponential = [
        case_distances.p_value(rng.exponential(), each_a_patient(rng.exponential(size=count)), 1e-4)
        for _ in range(draws)
    ]
    lighter = [
        case_distances.p_value(abs(rng.normal()), each_a_patient(abs(rng.normal(size=count))), 1e-4)
        for _ in range(draws)
    ]
    for level in (0.01, 0.003):
        assert stats.binomtest(int(np.sum(np.array(exponential) < level)), draws, level).pvalue > 0.001
        assert np.mean(np.array(lighter) < level) <= level


@pytest.mark.whole
def test_good_images_are_refused_no_more_often_than_the_level_says():
    refused = 0
    for seed in range(10):
        guard, rng = gate(seed, level=0.05), np.random.default_rng(1000 + seed)
        refused += sum(guard.verdict(seen(rng))[1] is not None for _ in range(30))
    assert refused / 300 <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize("held_out", thinned(2, [10, 40, 500]))
def test_what_the_header_is_enough_to_refuse_is_refused_with_it_whatever_the_network_sees(held_out):
    guard, rng = gate(trained=100, held_out=held_out), np.random.default_rng(8)
    for odd in (image(modality="CT"), image(spacing=4.0), image((200, 24, 18))):
        verdict = guard.refused_by_header(odd)
        assert verdict is not None
        assert verdict[0] < LEVEL
        p, reason, _ = guard.verdict(seen(rng, of=odd))
        assert p <= verdict[0]
        assert str(reason).partition(" (")[0] == verdict[1].partition(" (")[0]
    assert guard.refused_by_header(image()) is None
    assert replace(guard, level=0.0, held_out={}).refused_by_header(image(modality="CT")) is None


def part(observation, word: str):
    """The observation, of this part of the body."""
    header = observation.header
    return replace(observation, header=header._replace(words={**header.words, "body part": word}))


@pytest.mark.parametrize(
    ("patients", "alone", "refused"),
    only(
        [(98, 0, False), (99, 0, True)],
        [(98, 0, False), (99, 0, True), (140, 0, True), (140, 1, False), (140, 2, True)],
    ),
)
def test_a_word_that_nobody_had_is_evidence_by_enough_patients_of_whom_none_has_a_word_alone(patients, alone, refused):
    rng = np.random.default_rng(9)
    own = ["neck"] * alone + ["head"] * (patients - alone)
    # Each patient has two cases: they count once.
    each = [replace(part(seen(rng), one), patient=str(n)) for n, one in enumerate(own) for _ in range(2)]
    guard = image_gate.fit_guard(each[:-20], each[-20:], LEVEL, exact=True)
    assert guard is not None
    _, reason, notes = guard.verdict(part(seen(rng), "knee"))
    by_header = guard.refused_by_header(image(), {"body_part": "knee"})
    assert ("body part" in str(reason)) == refused == (by_header is not None)
    assert any("because the patients are too few: its body part is knee" in note for note in notes) == (patients < 99)


def test_another_modality_is_refused_by_few_patients_and_by_one_who_has_a_modality_alone():
    rng = np.random.default_rng(9)
    own = ["OT"] + ["MR"] * 39
    each = [replace(seen(rng, of=image(modality=one)), patient=str(n)) for n, one in enumerate(own)]
    guard = image_gate.fit_guard(each[:-10], each[-10:], LEVEL, exact=True)
    assert guard is not None
    assert "its modality is CT" in str(guard.verdict(seen(rng, of=image(modality="CT")))[1])
    assert guard.refused_by_header(image(modality="CT")) is not None


def test_a_colour_that_others_have_is_not_refused_by_headers_that_are_all_alike():
    rng = np.random.default_rng(3)

    def picture(tint: float) -> Observation:
        pixels = rng.uniform(0.0, 1.0, (1, 16, 16)) + np.array([tint, 0.0, -tint])[:, None, None]
        geometry = Geometry.of_pixels((16, 16))
        own = Image(pixels.astype(np.float32), geometry, modality="OP", channels=("R", "G", "B"))
        pictures.append(own)
        return replace(seen(rng), header=image_observation.header_facts(own))

    pictures: list[Image] = []
    tints = rng.uniform(0.1, 0.6, 140)
    guard = image_gate.fit_guard(
        [picture(one) for one in tints[:60]], [picture(one) for one in tints[60:100]], LEVEL, exact=True
    )
    assert guard is not None
    fresh = [picture(one) for one in tints[100:]]
    refused = [guard.refused_by_header(one) for one in pictures[100:]]
    assert refused.count(None) == len(fresh)
    long = image_observation.header_facts(
        flat := Image(np.ones((3, 16, 160), np.float32), Geometry.of_pixels((16, 160)), modality="OP")
    )
    verdict = guard.refused_by_header(flat)
    assert verdict is not None
    assert verdict[1].startswith("its ratio of sides (")
    assert guard.verdict(replace(seen(rng), header=long))[0] <= verdict[0] < LEVEL


@pytest.mark.parametrize("held_out", thinned(2, [10, 40, 500]))
def test_what_is_unlike_the_training_cases_is_refused_with_its_reason_and_its_figure(held_out):
    guard, rng = gate(trained=100, held_out=held_out), np.random.default_rng(7)
    for odd, reason in (
        (seen(rng, shift=3.0), "its intensities differ from those of"),
        (seen(rng, off=12.0), "the network sees other features in it than in"),
        (seen(rng, of=image((5, 6, 5), spacing=4.0)), "its spacing left to right is 4 mm, and about 1 mm in"),
        (seen(rng, of=image(modality="CT")), "its modality is CT; of the training cases it was MR"),
        (replace(seen(rng), sample=np.ones((2, 9), np.float32)), "one value everywhere"),
        (replace(seen(rng), features=np.full(8, np.nan)), "the network sees other features in it than in"),
    ):
        judged = guard.judge(Prediction(Geometry.of_pixels((4, 4)), values={"size": 1.0}), odd)
        assert reason in str(judged.abstained)
        assert judged.confidence.gate_p is not None and judged.confidence.gate_p < LEVEL
        assert judged.values == {"size": 1.0}  # whoever asks for them has them


def test_a_header_that_differs_by_a_trifle_from_headers_that_are_all_alike_is_not_odd():
    rng = np.random.default_rng(3)
    alike = [replace(seen(rng), header=image_observation.header_facts(image())) for _ in range(60)]
    guard = image_gate.fit_guard(alike[:40], alike[40:], LEVEL, exact=True)
    assert guard is not None
    for spacing, refused in ((1.0, False), (1.1, False), (2.0, True), (0.5, True)):
        own = replace(seen(np.random.default_rng(5)), header=image_observation.header_facts(image(spacing=spacing)))
        assert (guard.verdict(own)[1] is not None) == refused, spacing


def test_nothing_is_extrapolated_for_a_header_that_other_cases_have_as_well():
    known = each_a_patient(np.array([0.0] * 62 + [6.9] * 6))
    assert case_distances.p_value(6.9, known, 0.001, least=0.25) == pytest.approx(7 / 69)
    assert case_distances.p_value(7.0, known, 0.001, least=0.25) < 1 / 69


def test_training_cases_tell_as_well_how_far_headers_lie_apart():
    """Headers of which few other cases are known: two in a hundred that differ among the training cases are not odd."""
    rng = np.random.default_rng(4)
    wide = image(shape=(40, 24, 18))
    trained = [
        replace(seen(rng), header=image_observation.header_facts(wide if n % 10 == 3 else image())) for n in range(60)
    ]
    guard = image_gate.fit_guard(
        trained,
        [replace(seen(rng), header=image_observation.header_facts(image())) for _ in range(8)],
        LEVEL,
        exact=True,
    )
    assert guard is not None and len(guard.held_out["header"]) == 68
    assert guard.verdict(replace(seen(rng), header=image_observation.header_facts(wide)))[1] is None
    assert guard.verdict(replace(seen(rng), header=image_observation.header_facts(image(spacing=4.0))))[1] is not None


def textured(rng: np.random.Generator, *, along: int = 0, fine: float = 1.0) -> Observation:
    """An observation of a noisy picture with a bright middle, smooth along one axis."""
    pixels = rng.normal(size=(1, 32, 32)).cumsum(axis=1 + along) + fine * rng.normal(size=(1, 32, 32))
    pixels[:, 8:24, 8:24] += 12 + rng.normal()
    return replace(seen(rng), composed=image_observation.window_composition(pixels.astype(np.float32)))


def test_a_picture_that_is_turned_by_a_quarter_or_of_another_texture_is_refused():
    """Few cases did not train: that no network has a say lets the training cases tell how far others may lie."""
    rng = np.random.default_rng(2)
    guard = image_gate.fit_guard(
        [textured(rng) for _ in range(33)], [textured(rng) for _ in range(7)], LEVEL, exact=False
    )
    assert guard is not None
    assert {name: len(one) for name, one in guard.held_out.items()} == {
        "header": 40, "intensities": 40, "texture": 40, "layout": 40, "contrast": 40, "symmetry": 40,
        "features": 7, "neighbours": 7,
    }  # fmt: skip
    assert "its texture differs from that of" in str(guard.verdict(textured(rng, along=1))[1])
    assert "its texture differs from that of" in str(guard.verdict(textured(rng, fine=20.0))[1])
    inside_out = textured(rng)
    assert inside_out.composed is not None
    other = inside_out.composed._replace(layout=-inside_out.composed.layout)
    assert "it is bright and dark in other places than" in str(guard.verdict(replace(inside_out, composed=other))[1])
    inverted = inside_out.composed._replace(contrast=inside_out.composed.contrast + 3)
    assert "its contrast differs" in str(guard.verdict(replace(inside_out, composed=inverted))[1])
    uneven = inside_out.composed._replace(symmetry=inside_out.composed.symmetry + 6)
    assert "its symmetry differs" in str(guard.verdict(replace(inside_out, composed=uneven))[1])
    assert sum(guard.verdict(textured(rng))[1] is not None for _ in range(100)) <= 3


def test_a_score_of_which_few_patients_tell_has_a_small_part_of_the_level():
    rng = np.random.default_rng(2)
    guard = image_gate.fit_guard(
        [textured(rng) for _ in range(33)], [textured(rng) for _ in range(7)], LEVEL, exact=False
    )
    assert guard is not None
    parts = {name: share * (6 * 40 + 2 * 7) for name, share in guard.shares.items()}
    assert parts == pytest.approx({**dict.fromkeys(guard.held_out, 40), "features": 7, "neighbours": 7})
    turned = textured(rng, along=1)
    p = guard.p_values(guard.distances(turned))["texture"]
    assert guard.verdict(turned)[0] == pytest.approx(p * (6 * 40 + 2 * 7) / 40)
    settings = json.loads(json.dumps(guard.settings))
    assert Guard.from_record(settings, load(guard.content)).verdict(turned) == guard.verdict(turned)
    without = replace(turned, features=None)  # what cannot be computed leaves its part to the others
    assert guard.verdict(without)[0] == pytest.approx(6 * p, rel=0.2)


def test_enough_cases_that_did_not_train_tell_alone_how_far_others_may_lie():
    rng = np.random.default_rng(6)
    trained, held_out = [textured(rng) for _ in range(20)], [textured(rng) for _ in range(60)]
    guard = image_gate.fit_guard(trained, held_out, 0.2, exact=True)
    assert guard is not None and {len(one) for one in guard.held_out.values()} == {60}


def test_images_of_one_patient_do_not_judge_each_other():
    """Eight images of a patient unlike all others: among the others nothing is of their kind."""
    rng = np.random.default_rng(7)
    plain = textured(rng)
    assert plain.composed is not None
    odd = replace(plain, patient="odd", composed=plain.composed._replace(layout=-plain.composed.layout))
    trained = [*(replace(textured(rng), patient=str(n)) for n in range(30)), *[odd] * 8]
    held_out = [textured(rng) for _ in range(6)]
    known = image_gate.fit_guard(trained, held_out, LEVEL, exact=False)
    unknown = image_gate.fit_guard([replace(one, patient="") for one in trained], held_out, LEVEL, exact=False)
    assert known is not None and unknown is not None
    assert known.held_out["layout"].distances[-1] > 1.5 * unknown.held_out["layout"].distances[-1]


def picture(colour: float, *, channels: int = 3) -> Image:
    """Grey noise, and on top of its red so much of colour."""
    grey = np.random.default_rng(0).uniform(0, 200, size=(40, 40)).astype(np.float32)
    pixels = np.stack([grey + 50 * colour, grey, grey][:channels]).astype(np.uint8)
    return Image(pixels, Geometry.of_pixels((40, 40)), channels=("R", "G", "B") if channels == 3 else ())


def test_a_picture_in_colour_is_none_of_the_grey_ones_however_these_are_kept():
    rng = np.random.default_rng(1)
    grey = [
        replace(seen(rng), header=image_observation.header_facts(picture(0.0, channels=1 + 2 * (n % 2))))
        for n in range(40)
    ]
    guard = image_gate.fit_guard(grey[:33], grey[33:], LEVEL, exact=False)
    assert guard is not None
    for colour, refused in ((0.0, False), (0.04, False), (1.0, True)):
        reason = guard.verdict(replace(seen(rng), header=image_observation.header_facts(picture(colour))))[1]
        assert ("its colour differs" in str(reason)) == refused, (colour, reason)
    assert set(guard.held_out) >= {"colour", "header"}
    unnamed = replace(picture(1.0), channels=("0", "1", "2"))  # from an array
    assert image_observation.header_facts(unnamed) == image_observation.header_facts(picture(1.0))
    coloured = [replace(seen(rng), header=image_observation.header_facts(picture(1.0))) for _ in range(40)]
    of_colours = image_gate.fit_guard(coloured[:33], coloured[33:], LEVEL, exact=False)
    assert of_colours is not None and of_colours.verdict(coloured[0])[1] is None
    assert "its colour differs" in str(of_colours.verdict(replace(seen(rng), header=grey[0].header))[1])


def test_a_few_pictures_of_other_proportions_do_not_hide_a_colour():
    """Colours and proportions are two scores: how far the one may lie says nothing of the other."""
    rng = np.random.default_rng(3)
    sides = [100 if n % 10 == 0 else 40 for n in range(40)]
    grids = [Image(np.zeros((1, 40, side)), Geometry.of_pixels((40, side))) for side in sides]
    grey = [replace(seen(rng), header=image_observation.header_facts(grid)) for grid in grids]
    guard = image_gate.fit_guard(grey[:33], grey[33:], LEVEL, exact=False)
    assert guard is not None
    coloured = replace(seen(rng), header=image_observation.header_facts(picture(0.5)))
    assert "its colour differs" in str(guard.verdict(coloured)[1])
    assert guard.verdict(replace(coloured, header=image_observation.header_facts(picture(0.0))))[1] is None


def test_other_cases_decide_anew_how_far_images_may_lie_and_few_of_them_nothing():
    guard, rng = gate(), np.random.default_rng(5)
    of = image(spacing=1.6, modality="CT")
    site = [replace(seen(rng, of=of), patient=str(n)) for n in range(30)]
    assert guard.verdict(site[0])[1] is not None
    again = image_gate.refit(guard, site[1:], exact=False)
    assert again.verdict(site[0])[1] is None and not again.exact
    assert again.words["modality"] == {"CT": 29, "MR": 60 + 40} and len(again.calibrated) == 29
    assert image_gate.refit(guard, site[:3], exact=False) is guard


def test_what_cannot_be_looked_at_is_left_out_and_noted():
    guard, rng = gate(), np.random.default_rng(8)
    without = replace(seen(rng), features=None)
    p, reason, notes = guard.verdict(without)
    assert (reason, p > LEVEL) == (None, True) and "features" in notes[0]
    unseen = Observation(without.header)
    assert "intensities and features" in guard.verdict(unseen)[2][0]
    assert guard.verdict(replace(seen(rng, shift=3.0), features=None))[1] is not None


@pytest.mark.parametrize("trained", [1, 3])
def test_of_fewer_than_five_training_cases_the_headers_alone_set_limits(trained):
    rng = np.random.default_rng(0)
    others = [seen(rng) for _ in range(20)]
    made = image_gate.fit_guard(others[:trained], others, LEVEL, exact=True)
    assert made is not None and made.state.kind == LIMITS
    assert f"{trained} training case" in str(made.state) and "too few" in str(made.state)
    kept = model_record.read_parts({"guard": json.loads(json.dumps(made.settings))}, written(made)).guard
    given = Prediction(Geometry.of_pixels((4, 4)))
    for odd, reason in ((image(modality="CT"), "modality is CT"), (image(spacing=3.0), "3 times larger")):
        assert reason in str(kept.judge(given, seen(rng, of=odd)).abstained)
        assert reason in kept.refused_by_header(odd)[1]
    assert kept.judge(given, seen(rng, of=image(spacing=1.5))).abstained is None
    assert replace(kept, level=0.0).limit_refusal(image_observation.header_facts(image(modality="CT"))) is None


def test_a_gate_of_no_training_case_is_none():
    assert image_gate.fit_guard([], [seen(np.random.default_rng(0))], LEVEL, exact=True) is None


def written(guard: Guard):
    folder = Path(tempfile.mkdtemp())
    ModelParts(guard=guard).write(folder)
    return folder


@pytest.mark.parametrize("held_out", [0, 2])
def test_where_no_case_was_left_out_training_cases_judge_each_by_the_others(held_out):
    rng = np.random.default_rng(0)
    trained = [seen(rng) for _ in range(40)]
    made = image_gate.fit_guard(trained, trained[:held_out], LEVEL, exact=True)
    assert made is not None and made.state.is_fitted and "none was left out" in str(made.state)
    kept = model_record.read_parts({"guard": json.loads(json.dumps(made.settings))}, written(made)).guard
    good, odd, given = seen(rng), seen(rng, shift=3.0), Prediction(Geometry.of_pixels((4, 4)))
    assert "its intensities differ from those of" in str(kept.judge(given, odd).abstained)
    assert kept.judge(given, good).abstained is None
    # What the network sees in cases that trained it says nothing of others.
    assert kept.judge(given, seen(rng, off=50.0)).abstained is None
    assert image_gate.refit(kept, trained[:2], exact=True) is kept
    again = image_gate.refit(kept, [seen(rng) for _ in range(8)], exact=True)
    assert again.unseen == 8 and again.held_out["intensities"].patients == 48
    assert "the network sees other features" in str(again.judge(given, seen(rng, off=50.0)).abstained)


@pytest.mark.parametrize(
    ("theirs", "ours", "refused"),
    [
        ("wrist", "HEAD", True),
        ("BRAIN", "HEAD", False),
        ("NECK", "HEAD", False),
        ("", "HEAD", False),
        ("KNEE", "", False),
    ],
)
def test_another_region_of_the_body_is_refused_by_however_few_patients(theirs, ours, refused):
    rng = np.random.default_rng(0)
    few = [replace(seen(rng), header=image_observation.header_facts(image(), {"body_part": ours})) for _ in range(8)]
    guard = image_gate.fit_guard(few, [], LEVEL, exact=True)
    assert guard is not None
    verdict = guard.refused_by_header(image(), {"body_part": theirs})
    assert (verdict is not None and "region of the body is arm" in verdict[1]) == refused


def test_a_gate_says_on_what_it_rests():
    assert image_gate.tail_note(gate(held_out=200, level=0.05)) == (
        "The gate refuses an image with a p-value below 0.05, by comparison with 200 cases that chose nothing."
    )
    few = gate(held_out=20, exact=False)
    note = image_gate.tail_note(few)
    assert "20 validation cases" in note and "approximate" in note
    assert f"extrapolated ({100 * len(few.held_out) - 1} patients are enough)" in note


def test_a_gate_is_the_same_when_it_was_written_and_read(tmp_path):
    rng = np.random.default_rng(9)
    made = image_gate.fit_guard(
        [textured(rng) for _ in range(20)], [textured(rng) for _ in range(9)], LEVEL, exact=True
    )
    assert made is not None
    guard, odd = made, replace(textured(rng, along=1), features=None)
    ModelParts(guard=guard).write(tmp_path)
    record = json.loads(json.dumps({"guard": guard.settings}))
    again = model_record.read_parts(record, tmp_path).guard
    assert again is not None
    assert again.verdict(odd) == guard.verdict(odd)
    assert again.settings == guard.settings
    assert_allclose(again.calibrated, guard.calibrated)
    assert model_record.read_parts({}, tmp_path).settings == {}


def test_a_gate_keeps_what_the_network_saw_in_one_case_of_each_patient_who_did_not_train():
    rng = np.random.default_rng(0)
    trained, held_out = [seen(rng) for _ in range(40)], [seen(rng) for _ in range(12)]
    twice = [replace(one, patient=str(number // 2)) for number, one in enumerate(held_out)]
    guard = image_gate.fit_guard(trained, twice, LEVEL, exact=True)
    assert guard is not None
    assert guard.calibrated.shape == (6, 8)
    both = np.stack([guard.judge(Prediction(image().geometry), one).confidence.features for one in held_out[:2]])
    assert np.isclose(guard.calibrated[0], both, rtol=1e-5).all(axis=1).any()


def test_a_gate_that_is_not_the_models_own_is_refused(tmp_path):
    guard = gate()
    record = {"guard": guard.settings}
    with pytest.raises(IntegrityError, match="missing"):
        model_record.read_parts(record, tmp_path)
    ModelParts(guard=gate(seed=1)).write(tmp_path)
    with pytest.raises(IntegrityError, match="not the gate of this model"):
        model_record.read_parts(record, tmp_path)
    (tmp_path / "guard.safetensors").write_bytes(b"nothing")
    with pytest.raises(IntegrityError, match="not the gate of this model"):
        model_record.read_parts(record, tmp_path)
    ModelParts(guard=guard).write(tmp_path)
    with pytest.raises(IntegrityError, match="holds no gate"):
        model_record.read_parts({"guard": {**guard.settings, "numbers": 3}}, tmp_path)


def test_a_model_that_answers_nothing_names_the_cases_with_which_it_would():
    nothing = Answering(0.1, 0.1, np.inf, 400, 1234)
    assert nothing.words(exact=True).endswith("about 1,200 cases would show it")
    assert nothing.refusal(0.9).endswith("about 1,200 cases would show it")
    assert Answering.from_settings(nothing.settings) == nothing
    assert "more such cases do not help" in replace(nothing, enough=0).words(exact=True)
    assert replace(nothing, enough=None).words(exact=True).endswith("no answer at all")


def test_the_mean_of_models_answers_what_is_sure_enough_for_each_of_them():
    loose, strict = (Answering(0.1, 0.1, least, 50) for least in (0.6, 0.9))
    assert image_gate.strictest_answering([loose, None, strict]) == strict
    assert image_gate.strictest_answering([None, None]) is None
    assert image_gate.strictest_answering([loose, replace(strict, least=np.inf)]).refusal(0.99999) is not None


def test_a_gate_that_the_clock_cut_short_says_so_in_each_sentence_on_its_verdict():
    rng = np.random.default_rng(0)
    made = image_gate.fit_guard(
        [seen(rng) for _ in range(30)], [seen(rng) for _ in range(12)], LEVEL, exact=True, skipped=(75, 8)
    )
    assert made is not None and made.state.kind == CUT and not made.state.is_fitted
    cases = "30 of 105 training cases, and 12 of 20 that did not train it; the minutes were over"
    assert str(made.state) == f"gate cut short ({cases})"
    assert cases in image_gate.tail_note(made)
    _, reason, _ = made.verdict(seen(rng, off=50.0))
    assert reason is not None and cases in reason
    assert image_gate.refit(made, [seen(rng) for _ in range(40)], exact=True).skipped == (75, 0)


def test_a_gate_that_had_no_time_to_look_refuses_nothing_and_says_why():
    made = image_gate.unfitted_guard(LEVEL, (105, 20))
    judged = made.judge(Prediction(image().geometry), seen(np.random.default_rng(0), off=50.0))
    assert judged.abstained is None
    assert str(made.state).endswith("(the minutes were over before it had looked at a training case)")
