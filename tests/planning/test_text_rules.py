"""Free text among covariates: what it becomes, and that no trace of what few people said is left."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import PlanError
from hilum.planning.rules import covariate_rules
from hilum.runtime import Context, covariate_encoding
from hilum.runtime.covariate_encoding import PLACES
from planning.test_context import COUNT, ages, decided

ILL = ("cough and fever since days", "short of breath with fever", "fever, cough, green sputum")
WELL = ("routine control before surgery", "check before new employment", "control after a fracture")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def histories(honest=1.0):
    """A text for each case: of its class as often as `honest` says, and a day."""
    rng = np.random.default_rng(1)
    texts = []
    for n in range(COUNT):
        is_ill = bool(n % 2) == (rng.random() < honest)
        texts.append(f"{rng.choice(ILL if is_ill else WELL)}, seen on {rng.choice(DAYS)}")
    return texts


def test_a_history_becomes_numbers_that_tell_what_it_says():
    texts = histories(honest=0.8)
    decision = decided("history", history=texts)
    assert "history is free text: 12 numbers by hashes of its words, of which none is kept" in decision.because
    context = Context.from_settings(decision.value)
    vectors = np.stack([context.vector({"history": one})[0] for one in texts])
    assert vectors.mean(axis=0) == pytest.approx(0, abs=1e-4)
    assert vectors.std(axis=0) == pytest.approx(1, abs=1e-4)
    says_ill = np.array(["fever" in one for one in texts])
    fitted = np.linalg.lstsq(np.c_[vectors, np.ones(COUNT)], says_ill, rcond=None)[0]
    fresh = ["fever and cough", "a control before surgery"]
    ill, well = (np.append(context.vector({"history": one})[0], 1) @ fitted for one in fresh)
    assert ill > 0.5 > well


def test_no_word_is_kept_and_what_few_patients_say_leaves_no_trace():
    texts = histories(honest=0.8)
    texts[:4] = [f"{one}, says doctor Mustermann" for one in texts[:4]]
    column = decided("history", history=texts).value["history"]
    words = set("".join(one if one.isalpha() else " " for one in " ".join(texts)).split())
    stated = json.dumps(column).lower()
    assert not [word for word in words if len(word) > 4 and word.lower() in stated]
    weights = covariate_encoding.unpack_weights(column["weights"], len(column["means"]))
    assert not weights[zlib.crc32(b"mustermann") % PLACES].any()
    assert weights[zlib.crc32(b"fever") % PLACES].any()


def test_free_text_is_used_by_its_name_alone_and_is_left_out_of_all():
    decision = decided("all", age=ages(), history=histories(honest=0.8))
    assert set(decision.value) == {"age"}
    assert "history (free text, which is used where its name is given)" in decision.because


def test_a_text_that_states_the_label_or_shares_no_word_is_refused():
    with pytest.raises(PlanError, match="history: a proxy of the label: its words predict it"):
        stated = ["known pneumonia" if n % 2 else "healthy volunteer" for n in range(COUNT)]
        decided("history", history=[f"{one} {day}" for one, day in zip(stated, random_words(), strict=True)])
    of_four = covariate_rules.encode_free_text("h", histories(), [{}] * COUNT, [f"p{n % 4}" for n in range(COUNT)])
    assert of_four == "texts without a word that 5 training patients share"


def random_words():
    """A word of each case that no other case has."""
    rng = np.random.default_rng(2)
    return ["".join(rng.choice(list("bcdfghjklmnpqrstvwxz"), 9)) for _ in range(COUNT)]


def test_a_text_may_name_a_side_so_that_nothing_is_mirrored():
    decision = decided("history", history=histories(honest=0.8))
    assert covariate_rules.sided_covariate(decision.value) == "history"


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(2, 40))
def test_the_leading_directions_are_those_of_a_whole_decomposition(seed, rows, columns):
    rng = np.random.default_rng(seed)
    size = min(rows, columns)
    left, right = (np.linalg.qr(rng.normal(size=(n, size)))[0] for n in (rows, columns))
    matrix = left * np.geomspace(1, 1e-2, size) @ right.T
    found = covariate_rules.leading_directions(matrix, 3)
    _, values, expected = np.linalg.svd(matrix)
    assert np.linalg.norm(matrix @ found, axis=0) == pytest.approx(values[: found.shape[1]], rel=1e-3)
    assert np.abs(np.diag(found.T @ expected[: found.shape[1]].T)) == pytest.approx(1, abs=0.05)
