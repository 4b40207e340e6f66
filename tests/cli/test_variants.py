"""Commands of several forms refuse the flags of another form."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("feedback nowhere --import t.csv --since 2026-01-01", "--since: is not for feedback --import"),
        ("feedback nowhere --import t.csv --method typical", "--method: is not for feedback --import"),
        ("feedback nowhere --next 3 --since 2026-01-01", "--since: is not for feedback --next"),
        ("feedback nowhere --locked data", "--locked: is not for feedback without --next"),
        ("document nowhere --trace", "SUBJECT: is not for document --trace"),
        ("document nowhere --junit a.xml", "--junit: is not for document without --trace"),
        ("document nowhere --against run", "--against: is not for document without --trace or --verify"),
        ("document --verify a --against b --for claim", "--for: is not for document --verify"),
        ("plan nowhere --explain --all-decisions", "--explain, --all-decisions: are two forms"),
    ],
)
def test_a_flag_of_another_form_of_a_command_is_refused_by_name(cli, words, problem):
    done = cli(*words.split())
    assert done.code == 2
    assert problem in done.err
