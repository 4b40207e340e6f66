"""Text of strangers that reaches a terminal cannot steer it: names of files, words of headers, notes, log lines."""

from __future__ import annotations

import json
import logging

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum import errors
from hilum.cli.exit_codes import _Lines
from hilum.errors import FormatError

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
STEERING = [*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\u2066", "\udcff"]


@given(st.text(st.sampled_from(STEERING) | st.characters(), max_size=20))
def test_what_is_printed_holds_no_character_that_steers_a_terminal(text):
    shown = errors.printable_text(text)
    assert not {character for character in shown if character in STEERING} - {"\n", "\t"}
    shown.encode()  # a surrogate could not be


@pytest.mark.parametrize("text", ["Müller, 50 % of 3 × 4 mm²", "脳\t核\n", "\N{NO-BREAK SPACE}é"])
def test_what_people_write_stays_as_it_is(text):
    assert errors.printable_text(text) == text


def test_an_error_spells_out_what_a_file_says():
    error = FormatError(f"axes called {ESCAPE}", f"/data/{ESCAPE}.mnc", "Get it again")
    assert "\x1b" not in str(error) and r"\x1b]0;owned\x07" in str(error)
    assert error.problem.endswith(ESCAPE)  # programs see what is there


def test_a_log_line_does_too():
    record = logging.LogRecord("hilum", logging.INFO, "", 0, "case %s", (ESCAPE,), None)
    assert _Lines().format(record) == r"case \x1b]0;owned\x07\x1b[2J"


def test_the_command_line_shows_names_of_files_without_obeying_them(tmp_path, cli):
    path = tmp_path / "a\x1b[2Jb.nii"
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), path)
    done = cli("convert", path, "--out", tmp_path / "c\x1b[2Jd.nrrd")
    assert done.code == 0 and "\x1b" not in done.out + done.err and r"\x1b[2J" in done.out
    failed = cli("convert", path, "--volume", "\x1b[31m", "--out", tmp_path / "e.nrrd", "--json")
    assert failed.code == 2 and "\x1b" not in failed.out + failed.err
    assert "\x1b[2J" in json.loads(failed.out)["error"]["where"]


def test_a_page_of_a_file_whose_name_is_no_text_can_be_written(tmp_path, cli):
    path, page = tmp_path / "M\udcfcller.nii", tmp_path / "page.html"
    try:
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4)), path)
    except OSError:
        pytest.skip("the file system takes names in UTF-8 alone")
    done = cli("view", path, "--out", page)
    assert done.code == 0 and r"M\udcfcller" in page.read_text(encoding="utf-8")
