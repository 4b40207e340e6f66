from __future__ import annotations

import json

from hilum.values import CaseFacts, Fingerprint, dataset_fingerprint


def facts(name: str, shape: tuple[int, ...], mean: float, **more: object) -> CaseFacts:
    intensity = ({"min": 0.0, "mean": mean},)
    return CaseFacts(name, shape, (1.0,) * len(shape), True, True, ("T1",), "MR", intensity, **more)  # type: ignore[arg-type]


def test_the_summary_gives_smallest_median_and_largest_of_each_axis_and_the_median_case():
    cases = [facts("a", (10, 20), 1.0), facts("b", (12, 18), 5.0), facts("c", (30, 19), 3.0)]
    summary = Fingerprint(tuple(cases)).summary
    assert summary["cases"] == 3
    assert summary["shape"] == {"min": [10, 18], "median": [12, 19], "max": [30, 20]}
    assert summary["intensity"] == [{"min": 0.0, "mean": 3.0}]
    assert (summary["modalities"], summary["channels"], summary["physical"]) == (["MR"], ["T1"], True)


def test_findings_are_counted_where_they_are_known():
    findings = [{"a": True}, {"a": False, "b": True}, {"b": True}]
    cases = [facts(str(n), (4, 4), 0.0, references={"findings": one}) for n, one in enumerate(findings)]
    assert Fingerprint((*cases, facts("none", (4, 4), 0.0))).findings == {"a": (1, 1), "b": (2, 0)}


def test_the_summary_names_no_case():
    assert "Miller" not in json.dumps(Fingerprint((facts("Miller", (4, 4), 0.0),)).summary)


def test_cases_that_have_no_axes_in_common_have_no_shape_in_common():
    summary = Fingerprint((facts("a", (4, 4), 0.0), facts("b", (4, 4, 4), 0.0))).summary
    assert (summary["shape"], summary["spacing"]) == (None, None)
    assert Fingerprint(()).summary == {"cases": 0}


def test_sizes_of_images_are_stated_from_the_least_to_the_most_along_each_axis():
    assert dataset_fingerprint.sizes_in_words([(28, 28), (28, 28)]) == "all 28 x 28"
    assert (
        dataset_fingerprint.sizes_in_words([(32, 47, 41), (43, 42, 39), (35, 56, 39)])
        == "32 to 43 x 42 to 56 x 39 to 41"
    )
    assert dataset_fingerprint.sizes_in_words([(9, 9), (8, 8, 8), (9, 7)]) == "9 x 7 to 9 and 8 x 8 x 8"
