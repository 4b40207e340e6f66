"""Every backend says what torch says, and one that cannot says why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import onnx
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import hilum
from hilum.errors import IntegrityError, ResourceError, UsageError
from hilum.runtime import model_files, record_files
from hilum.runtime.package import backend_certificate, backends
from hilum.runtime.package.backends import BACKENDS
from hilum.runtime.package.backends import onnx as backends_onnx
from hilum.runtime.package.backends import onnx as onnx_backends
from matrices import rarely, thinned
from packages import changed

torch.set_num_threads(1)

# The backend of somebody else: it says the same of every voxel.
FOREIGN = """
import numpy as np


class Constant:
    name = "constant"
    packages = ("numpy",)
    precision = "float32"

    def lacking(self, device):
        return None

    def files(self, record):
        return ()

    def network(self, folder, device, threads):
        return lambda batch: {"mask": np.stack([0 * batch[:, 0], 0 * batch[:, 0], 1 + 0 * batch[:, 0]], axis=1)}


BACKEND = Constant()
"""
WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "monai", "lightning_fabric", "timm"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
import hilum
package, image, out = sys.argv[1:]
hilum.predict(package, image, out=out, backend="onnx", save_probabilities=True)
print(hilum.load(package, "cpu", backend="onnx").networks.computing.value)
print(sorted({"torch", "torchvision", "monai", "sklearn", "matplotlib", "scipy.stats"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def package(tiny):
    """One network."""
    return tiny("single")


@pytest.fixture(scope="module")
def folds(tiny):
    """The mean of two networks with a window each, whose images are resampled."""
    return tiny("folds")


@pytest.fixture
def own(package, tmp_path):
    """A package of one's own, to be damaged."""
    return Path(shutil.copytree(package, tmp_path / "tiny"))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "case.nii.gz"
    voxels = np.random.default_rng(3).normal(100, 30, (15, 13, 10)).astype(np.float32)
    nibabel.Nifti1Image(voxels, np.diag([-1.1, 1.2, 1.3, 1])).to_filename(path)
    return path


def windows(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 1, 8, 8, 4)).astype(np.float32)


@pytest.mark.parametrize("kind", ["package", rarely("folds")])
@pytest.mark.parametrize("name", ["onnx", rarely("openvino")])
def test_a_backend_says_of_any_number_of_windows_what_torch_says(name, kind, request):
    if (lacking := backends.find_backend(name).lacking("cpu")) is not None:
        pytest.skip(lacking)
    folder = request.getfixturevalue(kind)
    there, here = model_files.load(folder, "cpu", backend=name, threads=1), model_files.load(folder, "cpu")
    for count in (1, 3, 1):
        assert_allclose(
            there.networks.run(windows(count))["mask"], here.networks.run(windows(count))["mask"], atol=1e-4
        )


@pytest.mark.parametrize("kind", ["package", rarely("folds")])
@pytest.mark.parametrize("name", ["torch-bf16", "openvino-bf16"])
def test_a_backend_in_bfloat16_is_off_by_its_rounding_and_no_more(name, kind, request):
    if (lacking := backends.find_backend(name).lacking("cpu")) is not None:
        pytest.skip(lacking)
    folder = request.getfixturevalue(kind)
    there, here = model_files.load(folder, "cpu", backend=name, threads=1), model_files.load(folder, "cpu")
    for count in (1, 3, 1):
        ours, exact = (model.networks.run(windows(count))["mask"] for model in (there, here))
        apart = np.abs(ours - exact).max() / np.abs(exact).max()
        assert 1e-5 < apart < 4e-2  # eight bits, through a few layers: less would be float32


@pytest.mark.parametrize("name", thinned(1, ["onnx", "openvino"]))
def test_several_threads_that_share_a_backend_each_get_what_it_says_of_their_own_windows(name, package):
    if (lacking := backends.find_backend(name).lacking("cpu")) is not None:
        pytest.skip(lacking)
    run = model_files.load(package, "cpu", backend=name, threads=1).networks.run
    batches = [windows(4) * scale for scale in (0.1, 1.0, 10.0, 100.0)]
    expected = [run(batch)["mask"].copy() for batch in batches]

    def differing(number: int) -> int:
        return sum(not np.array_equal(run(batches[number])["mask"], expected[number]) for _ in range(200))

    with ThreadPoolExecutor(len(batches)) as pool:
        assert list(pool.map(differing, range(len(batches)))) == [0] * len(batches)


def test_what_a_backend_said_of_one_batch_outlives_the_next(package):
    for name in (one for one in ("onnx", "openvino") if backends.find_backend(one).lacking("cpu") is None):
        run = model_files.load(package, "cpu", backend=name, threads=1).networks.run
        first = run(windows(2))["mask"]
        before = first.copy()
        run(windows(3)), run(np.zeros_like(windows(2)))
        assert_array_equal(first, before)


@pytest.mark.parametrize("kind", ["package", rarely("folds")])
def test_onnx_predicts_from_file_to_file_where_torch_cannot_be_imported(kind, image, request, tmp_path):
    folder = request.getfixturevalue(kind)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(folder), str(image), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["cpu with onnx", "[]"]
    hilum.predict(folder, image, out=tmp_path / "torch", backend="torch", save_probabilities=True)
    ours, torchs = (
        [np.asarray(nibabel.load(tmp_path / one / f"case{kind}.nii.gz").dataobj) for kind in ("", "_probabilities")]
        for one in ("out", "torch")
    )
    assert_array_equal(ours[0], torchs[0])
    assert_allclose(ours[1], torchs[1], atol=1e-3)  # they are kept in 16 bits
    assert np.std(torchs[1]) > 0.01  # or all would be the same by being nothing
    record = json.loads((tmp_path / "out" / "summary.json").read_text())["model"]["computing"]
    assert record["value"] == "cpu with onnx"


@pytest.mark.whole
def test_what_is_compiled_once_is_taken_from_the_cache_and_says_what_torch_says(package, monkeypatch, tmp_path):
    if (lacking := backends.find_backend("compiled").lacking("cpu")) is not None:
        pytest.skip(lacking)
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path))
    here = model_files.load(package, "cpu").networks.run
    there = model_files.load(package, "cpu", backend="compiled").networks.run
    for count in (1, 3):
        assert_allclose(there(windows(count))["mask"], here(windows(count))["mask"], atol=1e-4)
    [kept] = (tmp_path / "compiled").iterdir()
    written = kept.stat().st_mtime_ns
    again = model_files.load(package, "cpu", backend="compiled").networks.run
    assert_array_equal(again(windows(1))["mask"], there(windows(1))["mask"])
    assert kept.stat().st_mtime_ns == written


def test_each_backend_has_the_name_it_is_found_by():
    assert {name: backends.find_backend(name).name for name in BACKENDS} == {name: name for name in BACKENDS}


def test_a_backend_that_nobody_knows_is_wrong_use(package):
    with pytest.raises(
        UsageError,
        match=r"no backend 'abacus'.*onnx, .*openvino, openvino-bf16, openvino-int8, tensorrt, torch, torch-bf16",
    ):
        model_files.load(package, "cpu", backend="abacus")


@pytest.mark.parametrize("name", ["onnx", "openvino", "tensorrt"])
def test_a_device_that_a_backend_cannot_use_is_refused_with_what_to_do(name, package):
    device = "cpu" if name == "tensorrt" else "mps"
    assert backends.find_backend(name).lacking(device) is not None
    if name == "tensorrt":
        with pytest.raises(ResourceError, match="Use one with --device cuda:0"):
            model_files.load(package, device, backend=name)


def test_a_backend_that_uses_no_gpu_computes_on_the_cpu_without_asking_torch():
    if (lacking := backends.find_backend("openvino").lacking("cpu")) is not None:
        pytest.skip(lacking)
    chosen = backend_certificate.backend_device(backends.find_backend("openvino"), "auto")
    assert (chosen.value, chosen.because) == ("cpu", "openvino cannot use a GPU here")


def test_an_engine_of_tensorrt_is_found_again_by_the_weights_that_it_was_built_of(package, own, monkeypatch, tmp_path):
    """ONNX Runtime names an engine after the graph alone, so that two trainings of a plan had one (its issue 6455)."""
    path, places = own / "models" / "model.onnx", list[str]()
    other = onnx.load(path)
    [weights] = other.graph.initializer[:1]
    weights.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(weights), weights.name))
    onnx.save(other, path)
    monkeypatch.setenv("HILUM_CACHE", str(tmp_path / "cache"))

    def opened(path, heads, providers, threads):
        places.append(providers[0][1]["trt_engine_cache_path"])

    monkeypatch.setattr(onnx_backends, "open_onnx", opened)
    for folder in (package, own, package):
        backends.find_backend("tensorrt").network(folder, "cuda:1", None)
    first, second, again = places
    assert first == again != second
    assert Path(second).is_dir()


@pytest.mark.parametrize(("device", "number"), [("cpu", -1), ("cuda:1", 1)])
def test_what_was_compiled_for_a_gpu_is_loaded_onto_that_one(device, number, package, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(record_files, "sealed_entry", lambda place, fill: tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr("torch._inductor.aoti_load_package", lambda path, device_index: asked.append(device_index))
    backends.find_backend("compiled").network(package, device, None)
    assert asked == [number]


def test_a_run_is_computed_by_torch_alone(segmented):
    with pytest.raises(UsageError, match=r"not a package.*hilum package"):
        model_files.load(segmented.out, "cpu", backend="onnx")
    assert model_files.load(segmented.out, "cpu", backend="auto").networks.computing.value == "cpu"


@pytest.mark.whole
def test_torch_alone_has_folds_apart(folds):
    with pytest.raises(UsageError, match=r"all folds as one.*--backend torch"):
        model_files.load(folds, "cpu", backend="onnx", fold=1)
    assert "folds apart" in model_files.load(folds, "cpu", backend="auto", fold=1).networks.computing.because


def test_a_package_without_an_onnx_file_says_why_and_what_to_choose(own):
    changed(own, "hilum/model.json", onnx={"exported": False, "because": "an operation has no name there"})
    with pytest.raises(UsageError, match=r"an operation has no name there.*--backend torch"):
        model_files.load(own, "cpu", backend="onnx")


def test_a_tampered_onnx_file_is_refused(own):
    content = bytearray((own / "models" / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (own / "models" / "model.onnx").write_bytes(content)
    with pytest.raises(IntegrityError, match=r"model.onnx.*SHA-256 differs"):
        model_files.load(own, "cpu", backend="onnx")


def test_an_onnx_file_that_the_manifest_does_not_list_is_not_read(own):
    record = json.loads((own / "manifest.json").read_text())
    del record["sha256"]["models/model.onnx"]
    (own / "manifest.json").write_text(json.dumps(record))
    with pytest.raises(IntegrityError, match="does not list"):
        model_files.load(own, "cpu", backend="onnx")


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_what_is_no_onnx_file_is_refused_by_name(name, own):
    if (lacking := backends.find_backend(name).lacking("cpu")) is not None:
        pytest.skip(lacking)
    (own / "models" / "model.onnx").write_bytes(b"no network")
    record_files.seal_folder(own)
    with pytest.raises(IntegrityError, match=r"model.onnx: cannot be opened"):
        model_files.load(own, "cpu", backend=name)


def test_a_network_with_a_second_output_is_refused(own):
    path = own / "models" / "model.onnx"
    network = onnx.load(path)
    network.graph.output.append(onnx.helper.make_empty_tensor_value_info(network.graph.node[0].output[0]))
    onnx.save(network, path)
    record_files.seal_folder(own)
    with pytest.raises(IntegrityError, match="not one input and one output"):
        model_files.load(own, "cpu", backend="onnx")


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert backends_onnx.usable_cores() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert 1 <= backends_onnx.usable_cores() <= (os.cpu_count() or 1)


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """What pip leaves of a package with a backend, found by this process and by those that it starts."""
    site, about = tmp_path / "site", tmp_path / "site" / "constant-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "constant_backend.py").write_text(FOREIGN)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: constant\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[hilum.backends]\nconstant = constant_backend:BACKEND\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", str(site))


def test_a_backend_of_another_package_computes_ours(package, image, foreign):
    assert "constant" in backends.backend_names()
    found = hilum.predict(package, image, backend="constant", device="cpu")
    [prediction] = found.predictions.values()
    assert np.unique(np.asarray(prediction.data)).tolist() == [7]  # the label of the last channel


def test_what_is_asked_for_has_to_be_a_backend_on_the_command_line_too(package, image, cli, tmp_path):
    done = cli("predict", package, image, "--out", tmp_path / "out", "--backend", "abacus")
    assert (done.code, "no backend 'abacus'" in done.last) == (2, True)
