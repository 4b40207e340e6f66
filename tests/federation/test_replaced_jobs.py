"""A job that takes the place of an older one costs nothing before it has begun."""

from __future__ import annotations

import pytest

from hilum.errors import DatasetError
from hilum.verbs import federate


def older_job(root):
    """The folder of a job and that of its sites."""
    out, private = root / "job", root / "job.sites"
    for folder in (out, private):
        folder.mkdir()
        (folder / "older").touch()
    return out, private


def fail() -> None:
    raise DatasetError("cannot be read", "site a", "Look at it")


def test_an_older_job_comes_back_where_the_new_one_was_never_begun(tmp_path):
    out, private = older_job(tmp_path)
    with pytest.raises(DatasetError), federate.in_place_of(out, private):
        assert not out.exists()
        private.mkdir()
        fail()
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "job", "job.sites", "job.sites/older", "job/older"
    ]  # fmt: skip


def test_a_new_job_that_was_stopped_stays_to_be_gone_on_with(tmp_path):
    out, private = older_job(tmp_path)
    with pytest.raises(DatasetError), federate.in_place_of(out, private):
        for folder in (out, private):
            folder.mkdir()
        fail()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["job", "job.sites"]


def test_a_finished_job_leaves_nothing_of_the_older_one(tmp_path):
    out, private = older_job(tmp_path)
    with federate.in_place_of(out, private):
        out.mkdir()
    assert [path.name for path in tmp_path.rglob("*")] == ["job"]
