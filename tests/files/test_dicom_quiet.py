"""Warnings are heard where they arise, and the process warns afterwards as it did before."""

from __future__ import annotations

import logging
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from hilum.files import file_formats
from hilum.files.dicom import library_warnings
from written_dicom import write_slice


def test_what_is_warned_inside_is_heard_once_and_not_shown() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # shown ones would fail here
        with library_warnings.collect_warnings() as caught:
            for _ in range(3):
                warnings.warn("odd", stacklevel=1)
            with library_warnings.collect_warnings() as inner:
                warnings.warn("odder", stacklevel=1)
            warnings.warn("oddest", stacklevel=1)
        assert caught == ["odd", "oddest"]
        assert inner == ["odder"]
        with pytest.raises(UserWarning, match="loud"):
            warnings.warn("loud", stacklevel=1)


def test_threads_that_leave_in_another_order_than_they_came_restore_everything() -> None:
    first_is_in, second_is_in, first_is_out = (threading.Event() for _ in range(3))
    caught: list[list[str]] = []

    def first() -> None:
        with library_warnings.collect_warnings() as mine:
            first_is_in.set()
            second_is_in.wait(10)
            warnings.warn("first", stacklevel=1)
        caught.append(mine)
        first_is_out.set()

    def second() -> None:
        first_is_in.wait(10)
        with library_warnings.collect_warnings() as mine:
            second_is_in.set()
            first_is_out.wait(10)
            warnings.warn("second", stacklevel=1)
        caught.append(mine)

    before = list(warnings.filters), warnings.showwarning
    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caught == [["first"], ["second"]]
    assert (list(warnings.filters), warnings.showwarning) == before


def test_what_the_library_logs_inside_is_heard_too_and_outside_it_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("pydicom")
    with library_warnings.collect_warnings() as caught:
        logger.warning("an odd %s", "value")
        logger.debug("of no concern")
    logger.warning("for all to see")
    assert caught == ["an odd value"]
    assert caplog.messages == ["for all to see"]


def test_values_that_a_warning_quotes_are_left_out(tmp_path: Path) -> None:
    path = write_slice(
        tmp_path / "a.dcm", np.zeros((2, 2), np.uint16), SliceThickness=1, SpecificCharacterSet="Doe^Jane"
    )
    notes = file_formats.read(path).notes
    assert "Unknown encoding '...' - using default encoding instead" in notes
    assert not any("Doe" in note for note in notes)


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("Invalid value for VR UI: 'Doe Jane'. See <part05>", "Invalid value for VR UI: '...'. See <part05>"),
        ("Invalid value for VR LO: \"O'Neill 'Jim\".", "Invalid value for VR LO: '...'."),
        ("Invalid value for VR LO: 'O'Neill'.", "Invalid value for VR LO: '...'."),
        ("Value 'GBK' allows no extensions, ignoring: Doe", "Value '...' allows no extensions, ignoring: '...'"),
    ],
)
def test_whatever_quotation_marks_a_value_holds_nothing_of_it_is_kept(message: str, kept: str) -> None:
    with library_warnings.collect_warnings() as caught:
        warnings.warn(message, stacklevel=1)
    assert caught == [kept]
