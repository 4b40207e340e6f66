from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isocenter.errors import UsageError
from isocenter.runtime.agreement import agreed

RULE = {"largest": True, "holes": False, "smallest": 3.0}
settings = st.dictionaries(st.sampled_from("abc"), st.one_of(st.floats(0, 1), st.booleans(), st.text(), st.none()))


@given(settings, st.integers(1, 5))
def test_members_that_say_the_same_agree_on_it(one, count):
    assert agreed([one] * count, "run") == one


def test_a_threshold_is_the_mean_of_the_members():
    said = [{"point": {"rule": "youden", "threshold": value}} for value in (0.3, 0.4, 0.8)]
    assert agreed(said, "run") == {"point": {"rule": "youden", "threshold": pytest.approx(0.5)}}


def test_a_label_is_tidied_where_more_than_half_of_the_members_found_that_it_helps():
    said = [
        {"postprocessing": {"liver": RULE}},
        {"postprocessing": {"liver": {**RULE, "holes": True, "smallest": 6.0}, "cyst": RULE}},
        {"postprocessing": None},
    ]
    assert agreed(said, "run") == {"postprocessing": {"liver": {**RULE, "smallest": 4.5}}}
    assert agreed([*said, said[1], said[1]], "run")["postprocessing"]["liver"]["holes"]
    assert agreed(said[1:], "run") == {"postprocessing": {}}


def test_what_no_half_agrees_on_is_refused():
    assert agreed([{"loss": "ce"}, {"loss": "ce"}, {"loss": "focal"}], "run") == {"loss": "ce"}
    with pytest.raises(UsageError, match=r"run, loss: its members differ: ce, focal\. Choose one with --fold"):
        agreed([{"loss": "ce"}, {"loss": "focal"}], "run")
