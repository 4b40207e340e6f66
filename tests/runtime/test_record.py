from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import IntegrityError
from hilum.runtime import record_files

SCHEMA = "hilum.test"
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "inner" / "b.bin").write_bytes(bytes(range(256)))
    record_files.seal_folder(folder)
    return folder


@given(st.dictionaries(st.text().filter(lambda name: name not in ("schema", "version")), plain, max_size=3))
def test_a_record_is_read_as_it_was_written(tmp_path_factory, record):
    path = tmp_path_factory.mktemp("record") / "record.json"
    record_files.write_json(path, SCHEMA, record)
    assert record_files.read_json(path, SCHEMA) == {"schema": SCHEMA, "version": 1, **record}


def test_a_record_holds_plain_json_with_null_for_what_is_no_number(tmp_path):
    path = tmp_path / "record.json"
    record = {
        "nan": float("nan"), "inf": [np.inf, -np.inf], "numpy": np.float32(0.5), "count": np.int64(3), "pair": (1, 2),
        "array": np.array([[1.0, np.nan]]), "tensor": torch.tensor([2, 3]), 4: {"yes": np.True_}, "empty": np.array([]),
    }  # fmt: skip
    record_files.write_json(path, SCHEMA, record)
    assert json.loads(path.read_text(), parse_constant=pytest.fail) == {
        "schema": SCHEMA, "version": 1, "nan": None, "inf": [None, None], "numpy": 0.5, "count": 3, "pair": [1, 2],
        "array": [[1.0, None]], "tensor": [2, 3], "4": {"yes": True}, "empty": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema": "hilum.test", "version": 2}', "another version"),
        ('{"schema": "hilum.test", "version": 0}', "another version"),
        ('{"schema": "hilum.other", "version": 1}', "not a record of the kind hilum.test"),
        ('{"schema": "hilum.test", "version": "1"}', "not a record of the kind hilum.test"),
        ('{"schema": "hilum.test"}', "not a record of the kind hilum.test"),
        ('{"schema": "hilum.test", "ver', "not a record of the kind hilum.test"),
        ("[1, 2]", "not a record of the kind hilum.test"),
        ("", "not a record of the kind hilum.test"),
        ("\xff\xfe", "not a record of the kind hilum.test"),
    ],
)
def test_another_damaged_or_other_record_is_refused_by_its_path(tmp_path, text, says):
    path = tmp_path / "record.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(IntegrityError, match=says) as caught:
        record_files.read_json(path, SCHEMA)
    assert caught.value.where == str(path)


def test_a_record_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(IntegrityError, match="is missing"):
        record_files.read_json(tmp_path / "record.json", SCHEMA)


def test_a_sealed_folder_is_what_was_written(sealed):
    record_files.verify_seal(sealed)
    listed = json.loads((sealed / "manifest.json").read_text())["sha256"]
    assert sorted(listed) == ["a.txt", "inner/b.bin"]
    assert listed["a.txt"] == "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"  # sha256sum of "one"
    assert record_files.file_digest(sealed / "a.txt") == listed["a.txt"]


@given(st.integers(0, 255), st.integers(1, 255))
def test_one_changed_byte_is_detected(tmp_path_factory, place, by):
    folder = tmp_path_factory.mktemp("model")
    (folder / "b.bin").write_bytes(bytes(range(256)))
    record_files.seal_folder(folder)
    changed = bytearray(range(256))
    changed[place] ^= by
    (folder / "b.bin").write_bytes(changed)
    with pytest.raises(IntegrityError, match=r"b\.bin: is not the file that was written"):
        record_files.verify_seal(folder)


def test_a_missing_file_is_detected(sealed):
    (sealed / "inner" / "b.bin").unlink()
    with pytest.raises(IntegrityError, match=r"b\.bin: is missing"):
        record_files.verify_seal(sealed)


def test_a_folder_without_a_seal_is_refused(sealed):
    (sealed / "manifest.json").unlink()
    with pytest.raises(IntegrityError, match=r"manifest\.json: is missing"):
        record_files.verify_seal(sealed)


@pytest.mark.parametrize("listed", [None, [], {"a.txt": 5}])
def test_a_manifest_without_hashes_is_no_seal(sealed, listed):
    record = {"schema": "hilum.manifest", "version": 1, **({} if listed is None else {"sha256": listed})}
    (sealed / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match=r"manifest\.json|a\.txt"):
        record_files.verify_seal(sealed)


def test_a_file_that_is_needed_must_be_under_the_seal(sealed):
    (sealed / "weights.bin").write_bytes(b"put there later")
    record_files.verify_seal(sealed, needed=["a.txt"])
    with pytest.raises(IntegrityError, match=r"manifest\.json: does not list weights\.bin"):
        record_files.verify_seal(sealed, needed=["weights.bin"])


@pytest.mark.parametrize("path", ["../secret.txt", "inner/../../secret.txt", "{root}/secret.txt"])
def test_a_manifest_that_names_a_file_outside_its_folder_is_refused(sealed, path):
    secret = sealed.parent / "secret.txt"
    secret.write_text("private")
    manifest = sealed / "manifest.json"
    record = json.loads(manifest.read_text())
    record["sha256"][path.format(root=sealed.parent)] = record_files.file_digest(secret)
    manifest.write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match="outside its folder"):
        record_files.verify_seal(sealed)


def test_a_link_out_of_the_folder_is_refused(sealed):
    secret = sealed.parent / "secret.txt"
    secret.write_text("one")
    (sealed / "a.txt").unlink()
    (sealed / "a.txt").symlink_to(secret)
    with pytest.raises(IntegrityError, match="outside its folder"):
        record_files.verify_seal(sealed)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_come_back_to_the_bit(tmp_path, kind):
    tensors = {"a.b": torch.arange(6).reshape(2, 3).to(kind), "turned": torch.arange(6).reshape(2, 3).T.to(kind)}
    record_files.write_tensors(tmp_path / "weights.safetensors", tensors)
    again = record_files.read_tensors(tmp_path / "weights.safetensors")
    assert set(again) == set(tensors)
    assert all(torch.equal(again[name], tensor) and again[name].dtype == kind for name, tensor in tensors.items())


class Trap:
    """What a hostile pickle does when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("write", [lambda thing, path: path.write_bytes(pickle.dumps(thing)), torch.save])
def test_a_pickle_in_place_of_weights_is_refused_and_never_opened(tmp_path, write):
    path, sprung = tmp_path / "weights.safetensors", tmp_path / "sprung"
    write(Trap(sprung), path)
    with pytest.raises(IntegrityError, match="no safetensors"):
        record_files.read_tensors(path)
    assert not sprung.exists()


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\xff" * 8 + b[8:]])
def test_weights_that_were_cut_short_are_refused(tmp_path, damage):
    path = tmp_path / "weights.safetensors"
    record_files.write_tensors(path, {"a": torch.zeros(100)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(IntegrityError, match="no safetensors"):
        record_files.read_tensors(path)
    path.unlink()
    with pytest.raises(IntegrityError, match="no safetensors"):
        record_files.read_tensors(path)
