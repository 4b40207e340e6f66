"""`node.toml`: read strictly, with the line of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from isocenter.errors import UsageError
from isocenter.service import read_settings

WHOLE = """
[node]
name = "radiology"
folder = "node"
uid_root = "2.25"
[dicom]
ae_title = "ISOCENTER"
port = 11112
[[peers]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
[models.hippocampus]
path = "hippocampus"
[[rules]]
name = "hippocampus on MR"
model = "hippocampus"
when = { Modality = "MR", SeriesDescription = "~(?i)hippo", spacing_mm = [0.5, 1.5], slices = [20, 400] }
unless = { ImageType = "DERIVED" }
send = ["pacs"]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "node.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_that_says_nothing_gives_a_node_on_loopback(tmp_path):
    settings = read_settings(written(tmp_path, ""))
    assert (settings.dicom.host, settings.dicom.port, settings.http.port) == ("127.0.0.1", 11112, 8180)
    assert settings.folder == tmp_path / "node"


def test_relative_paths_count_from_the_folder_of_the_file(tmp_path):
    settings = read_settings(written(tmp_path, WHOLE))
    assert settings.models["hippocampus"].path == tmp_path / "hippocampus"
    assert settings.rules[0].when["spacing_mm"] == (0.5, 1.5)
    assert settings.peers[0].may == ["store", "commit"]


def test_models_are_named_by_their_folders(tmp_path):
    settings = read_settings(models=[tmp_path / "lung"], folder=tmp_path / "here")
    assert settings.models["lung"].path == tmp_path / "lung"
    assert settings.folder == tmp_path / "here"


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("port = 11112", "prot = 11112", 8, "dicom.prot"),
        ("port = 4242", "port = 99999", 13, "peers.0.port"),
        ('uid_root = "2.25"', 'uid_root = "2.025"', 5, "root of UIDs"),
        ('path = "hippocampus"', "", 14, "models.hippocampus.path"),
        ('send = ["pacs"]', 'send = ["archive"]', 1, "no peer"),
        ('model = "hippocampus"\n', 'model = "lung"\n', 1, "is not there"),
        ('"~(?i)hippo"', '"~(hippo"', 16, "no regular expression"),
        ('ae_title = "ORTHANC"', 'ae_title = "A TITLE THAT IS TOO LONG"', 11, "AE title"),
        ('send = ["pacs"]', 'send = ["pacs"]\nhours = "7-19"', 22, "hours"),
        ("[dicom]", '[dicom]\nhost = "0.0.0.0"\n[[peer]]', 8, "no such key"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, old, new, line, words):
    assert WHOLE.count(old) >= 1
    path = written(tmp_path, WHOLE.replace(old, new, 1))
    with pytest.raises(UsageError, match=words) as error:
        read_settings(path)
    assert f"line {line}" in error.value.where


def test_a_node_that_others_reach_lists_its_peers(tmp_path):
    with pytest.raises(UsageError, match="no peer is listed"):
        read_settings(written(tmp_path, '[dicom]\nhost = "0.0.0.0"\n'))


def test_a_file_that_is_no_toml_is_named(tmp_path):
    with pytest.raises(UsageError, match="no TOML"):
        read_settings(written(tmp_path, "[dicom\n"))
    with pytest.raises(UsageError, match="cannot be read"):
        read_settings(tmp_path / "none.toml")


def test_a_password_does_not_stand_in_the_file(tmp_path):
    with pytest.raises(UsageError, match=r"database\.url"):
        read_settings(written(tmp_path, '[database]\nurl = "postgresql://me:secret@host/node"\n'))
