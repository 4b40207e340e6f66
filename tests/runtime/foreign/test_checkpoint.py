from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from hilum.errors import FormatError, IntegrityError, UsageError
from hilum.networks import weight_loading
from hilum.networks.layouts import nnunet_weights
from hilum.runtime.foreign import nnunet_model, torch_files
from hilum.runtime.foreign.nnunet_model import LARGEST


class Touch:
    """What it makes when it is unpickled shows that code was run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def written(tmp_path: Path, **more: object) -> Path:
    path = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": OrderedDict(a=torch.arange(3.0)), **more}, path)
    return path


def test_weights_and_what_nnunet_logs_of_numpy_are_read(tmp_path):
    log = {"dice": [np.float64(0.25), np.float32(0.5), np.int64(3), np.bool_(True), np.float16(1.5)]}
    found = torch_files.read_torch_file(written(tmp_path, logging=log, device=torch.device("cuda", 0), fold="all"))
    assert torch.equal(found["network_weights"]["a"], torch.arange(3.0))
    assert [float(one) for one in found["logging"]["dice"]] == [0.25, 0.5, 3.0, 1.0, 1.5]


def test_numbers_of_numpy_before_its_second_version_are_read_too(tmp_path):
    path, old = written(tmp_path, best=np.float64(0.75)), tmp_path / "old.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            target.writestr(entry, content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert float(torch_files.read_torch_file(old)["best"]) == 0.75


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "one stream"])
def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path, legacy):
    path, mark = tmp_path / "evil.pth", tmp_path / "mark"
    torch.save({"network_weights": {}, "logging": Touch(mark)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(IntegrityError, match=r"posix\.mkdir"):
        torch_files.read_torch_file(path)
    assert not mark.exists()
    torch.load(path, weights_only=False)  # what a careless reader would do
    assert mark.exists()


@pytest.mark.parametrize(
    ("reads", "error"), [(torch_files.read_torch_file, FormatError), (weight_loading.read_weights_file, IntegrityError)]
)
def test_weights_that_were_compressed_to_fill_the_memory_are_refused(tmp_path, reads, error):
    torch.save({"layer.weight": torch.zeros(2**22)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as source, zipfile.ZipFile(tmp_path / "w.pth", "w") as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry), zipfile.ZIP_DEFLATED)
    with pytest.raises(error, match=r"would unpack to .* attack"):
        reads(tmp_path / "w.pth")
    assert len(torch.load(tmp_path / "w.pth")["layer.weight"]) == 2**22  # what torch makes of it


def test_a_numpy_value_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(IntegrityError):
        torch_files.read_torch_file(written(tmp_path, name=np.str_("text")))
    with pytest.raises(IntegrityError):
        torch_files.read_torch_file(written(tmp_path, when=np.datetime64("2024-01-01")))


def test_what_is_trusted_by_name_takes_part_and_the_refusal_says_which_name(tmp_path):
    path = written(tmp_path, took=timedelta(seconds=3))
    with pytest.raises(IntegrityError, match=r"--trust datetime\.timedelta"):
        torch_files.read_torch_file(path)
    assert torch_files.read_torch_file(path, ["datetime.timedelta"])["took"] == timedelta(seconds=3)
    with pytest.raises(IntegrityError):
        torch_files.read_torch_file(path)  # trust is not remembered
    with pytest.raises(UsageError, match="no_such"):
        torch_files.read_torch_file(path, ["datetime.no_such"])


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04cut"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "one.pth").write_bytes(content)
    with pytest.raises((FormatError, IntegrityError), match=r"one\.pth"):
        torch_files.read_torch_file(tmp_path / "one.pth")


def test_each_parameter_is_kept_once_and_a_wrapping_goes():
    one = torch.zeros(1)
    weights = {
        "module.encoder.stages.0.0.convs.0.conv.weight": one,
        "encoder.stages.0.0.convs.0.all_modules.0.weight": one,
        "decoder.encoder.stages.0.0.convs.0.conv.weight": one,
        "_orig_mod.decoder.seg_layers.0.bias": one,
    }
    assert list(nnunet_weights.without_repeats(weights)) == [
        "encoder.stages.0.0.convs.0.conv.weight",
        "decoder.seg_layers.0.bias",
    ]


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A function under the name of nnU-Net's own, which is not installed: pickles hold no more than the name."""
    module, _, name = LARGEST.rpartition(".")

    def known(segmentation: object, **arguments: object) -> None:
        raise AssertionError("it was called")

    known.__module__, known.__qualname__ = module, name
    for depth in range(1, module.count(".") + 2):
        within = ".".join(module.split(".")[:depth])
        monkeypatch.setitem(sys.modules, within, ModuleType(within))
    setattr(sys.modules[module], name, known)
    return known


@pytest.mark.parametrize("protocol", [2, 4])
def test_nnunets_postprocessing_is_read_as_groups_of_labels(tmp_path, step, protocol):
    path = tmp_path / "postprocessing.pkl"
    arguments = [{"labels_or_regions": [(1, 2), 3]}, {"labels_or_regions": np.int64(2), "background_label": 0}]
    path.write_bytes(pickle.dumps(([step, step], arguments), protocol))
    assert nnunet_model.read_postprocessing(path) == ((1, 2, 3), (2,))


@pytest.mark.parametrize(
    "arguments", [{"labels_or_regions": 1, "background_label": 2}, {"labels_or_regions": 1, "smallest": 5}]
)
def test_a_postprocessing_that_does_more_than_we_know_is_refused(tmp_path, step, arguments):
    path = tmp_path / "postprocessing.pkl"
    path.write_bytes(pickle.dumps(([step], [arguments])))
    with pytest.raises(IntegrityError, match="postprocessing"):
        nnunet_model.read_postprocessing(path)


def test_a_postprocessing_that_names_another_function_is_refused(tmp_path):
    path, mark = tmp_path / "postprocessing.pkl", tmp_path / "mark"
    path.write_bytes(pickle.dumps(([Touch(mark)], [{"labels_or_regions": [1]}])))
    with pytest.raises(IntegrityError, match=r"would call posix\.mkdir"):
        nnunet_model.read_postprocessing(path)
    assert not mark.exists()
    (tmp_path / "none.pkl").write_bytes(b"text")
    with pytest.raises((FormatError, IntegrityError), match=r"none\.pkl"):
        nnunet_model.read_postprocessing(tmp_path / "none.pkl")
