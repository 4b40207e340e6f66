"""The conformance statements say what the code does, and name tests that there are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hilum.service.dicom.handed_associations import UPS_CLASSES

DOCS = Path(__file__).parents[2] / "docs"


def statement():
    """The program that writes the page."""
    spec = importlib.util.spec_from_file_location("state_conformance", DOCS / "state_conformance.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def test_the_page_is_what_the_code_says():
    program = statement()
    assert program.PAGE.read_text(encoding="utf-8") == program.page()
    assert all(uid in program.page() for uid in UPS_CLASSES)


def test_each_transaction_and_primitive_has_a_test_that_exists_or_is_stated_as_not_done():
    program = statement()
    for name, part, test in (*program.AIW_I, *program.AIR, *program.AIR_STEPS, *program.IOCM):
        assert test.startswith(program.NOT_DONE) or (program.ROOT / test).exists(), test
        assert bool(part) != test.startswith(program.NOT_DONE), name
    assert (len(program.AIW_I), len(program.AIR)) == (16, 10)
