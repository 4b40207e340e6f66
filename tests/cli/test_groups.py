"""Commands of groups, the verb that a group's own name stands for, and the forms in which a result is printed."""

from __future__ import annotations

import numpy as np
import pytest

import hilum
from hilum.options.command_index import COMMANDS
from hilum.values import Geometry, Image

GROUPED = [one.words for one in COMMANDS if " " in one.words]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("feedback import nowhere t.csv --since 2026-01-01", "hilum feedback import: No such option: --since"),
        ("feedback next nowhere 3 --since 2026-01-01", "hilum feedback next: No such option: --since"),
        ("feedback next nowhere 0", "COUNT: 0 is below 1"),
        ("feedback nowhere --locked data", "hilum feedback: No such option: --locked"),
        ("document trace nowhere", "hilum document trace: Got unexpected extra argument(s) (nowhere)"),
        ("document nowhere --junit a.xml", "hilum document: No such option: --junit"),
        ("document verify a", "hilum document verify: Missing option '--against'"),
        ("document verify a --against b --for claim", "hilum document verify: No such option: --for"),
        ("document", "hilum document: Missing argument 'SUBJECT'"),
        ("register frames", "hilum register frames: Missing argument 'SERIES'"),
        ("networks unet", "hilum networks: Got unexpected extra argument(s) (unet)"),
        ("study", "hilum study: Missing command"),
        ("plan nowhere --explain --all-decisions", "--explain, --all-decisions: are two forms"),
    ],
)
def test_a_word_that_a_command_has_no_use_for_is_refused_by_the_name_of_the_command(cli, words, problem):
    done = cli(*words.split())
    assert done.code == 2
    assert problem in done.err


@pytest.mark.parametrize("group", sorted({words.split()[0] for words in GROUPED}))
def test_the_help_of_a_group_lists_its_commands_each_on_a_line(cli, group):
    listed = cli(group, "--help").out.partition("Commands:")[2]
    assert [line.split()[0] for line in listed.splitlines() if line] == [
        words.split()[1] for words in GROUPED if words.startswith(f"{group} ")
    ]


def test_only_the_first_word_of_a_group_names_a_command_and_a_file_of_its_name_has_its_folder(
    cli, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    still = Image(np.random.default_rng(0).normal(size=(1, 8, 8, 8)).astype("float32"), Geometry((8, 8, 8), np.eye(4)))
    hilum.write(still, tmp_path / "frames.nii.gz")
    (tmp_path / "frames.nii.gz").rename(tmp_path / "frames")
    assert cli("register", "frames", "absent.nii.gz").last.startswith("absent.nii.gz: ")
    # It is read, and refused for what it holds or is called, not for being a command.
    for words in (["./frames", "absent.nii.gz"], ["--transform", "rigid", "frames", "absent.nii.gz"]):
        assert cli("register", *words).last.startswith(("frames: ", "absent.nii.gz: "))
