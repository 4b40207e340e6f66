from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch

from hilum.errors import MemoryShortageError
from hilum.runtime import Model, Preprocessing, ensemble, predicted_memory, torch_networks
from hilum.runtime.inference import Inference
from hilum.runtime.predicted_memory import ExpectedMemory
from hilum.runtime.preprocessing.nnunet_preprocessing import NNUNetPreprocessing, Scheme
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation
from hilum.values import Deferred, Geometry, Image

NETWORK = {
    "name": "unet",
    "channels": 1,
    "spatial_dims": 3,
    "size": {"width": 8, "widest": 16, "strides": [[1, 1, 1], [2, 2, 2]]},
}
# One prediction in a process of its own, which says what it held before and at the most, and what was expected.
MEASURED = """
import numpy as np, psutil
from test_expected import noise_image, made
from hilum.runtime import hardware, predicted_memory
model, image = made(CLASSES, spacing=SPACING), noise_image(SHAPE)
expected, before = predicted_memory.expected_memory(model, image).total, psutil.Process().memory_info().rss
np.asarray(model.predict(image).data)
print(before, expected, int(hardware.peak_memory()))
"""


def made(classes: int = 2, batch: int = 1, spacing: tuple[float, ...] | None = None) -> Model:
    labels = [{"value": n, "name": f"part {n}"} for n in range(1, classes + 1)]
    task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 2.0})
    preprocessing = Preprocessing(
        ndim=3, channels=("image",), modality="MR", spacing=spacing, normalisation=(Normalisation("zscore"),)
    )
    module = torch_networks.build_module(task, NETWORK).eval()
    return Model(
        task, preprocessing, Inference((32, 32, 32), overlap=0.0, batch=batch), Networks(TorchNetwork(module), NETWORK)
    )


def noise_image(shape: tuple[int, ...]) -> Image:
    voxels = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    return Image(voxels, Geometry(shape, np.eye(4)), modality="MR", channels=("image",))


def image_of(shape: tuple[int, ...]) -> Image:
    """An image of which nothing but the header may be looked at."""

    def read() -> np.ndarray:
        raise AssertionError("the voxels were read")

    pixels = Deferred((1, *shape), np.dtype(np.float32), read)
    return Image(pixels, Geometry(shape, np.eye(4)), modality="MR", channels=("image",))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
@pytest.mark.parametrize(("classes", "shape", "spacing"), [(2, (64, 96, 96), None), (40, (40, 160, 160), (1, 2, 2))])
@pytest.mark.whole
def test_what_a_prediction_takes_is_within_a_quarter_of_what_was_expected(classes, shape, spacing, request):
    script = MEASURED.replace("CLASSES", str(classes)).replace("SHAPE", str(shape)).replace("SPACING", str(spacing))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=request.path.parent
    )
    before, expected, peak = map(int, done.stdout.split())
    assert 0.75 < (before + expected) / peak < 1.25


def test_nothing_but_the_header_is_looked_at_and_a_large_volume_takes_what_its_plane_takes():
    short, long = (predicted_memory.expected_memory(made(), image_of((256, 256, n))) for n in (2000, 8000))
    assert long.image == short.image
    assert long.network == short.network
    assert long.result == 4 * short.result


def test_what_another_program_prepares_whole_is_reckoned_whole_and_its_outputs_by_columns():
    schemes = (Scheme("ZScoreNormalization"),)
    whole = NNUNetPreprocessing(("image",), schemes, (1.0, 1.0, 1.0), (32, 32, 32))
    model, image = replace(made(40), preprocessing=whole), image_of((1024, 1024, 500))
    found = predicted_memory.expected_memory(model, image)
    assert found.image > 8 * math.prod(image.shape)
    assert found.sums == predicted_memory.expected_memory(made(40), image).sums < 4 * 41 * 32 * 1024 * 500


def test_more_classes_and_larger_batches_take_more():
    few, many = (predicted_memory.expected_memory(made(n), image_of((64, 64, 64))) for n in (2, 80))
    assert many.sums > 10 * few.sums
    single, four = (predicted_memory.expected_memory(made(batch=n), image_of((64, 64, 64))) for n in (1, 4))
    assert four.network > single.network + 3 * 4 * 8 * 32**3  # at least the eight channels of each window
    assert four.image == single.image


def test_an_image_of_another_kind_is_left_to_who_refuses_it():
    picture = Image(np.zeros((1, 40, 40), np.float32), Geometry((40, 40), np.eye(3)), "unknown", ("image",))
    assert predicted_memory.fit_batch_to_memory(model := made(), picture, "case") is model


def test_a_network_that_is_not_torchs_is_reckoned_by_its_window():
    model = made().with_run(lambda batch: {"mask": batch})
    assert predicted_memory.expected_memory(model, image_of((64, 64, 64))).network > 4 * 32**3


def test_what_a_network_takes_is_that_of_its_own_layers_whatever_it_is_called():
    model = made()
    called_otherwise = replace(
        model, networks=replace(model.networks, architecture={**NETWORK, "name": "somebody's own"})
    )
    assert predicted_memory.expected_memory(
        called_otherwise, image_of((64, 64, 64))
    ) == predicted_memory.expected_memory(model, image_of((64, 64, 64)))
    assert {one.device.type for one in model.networks.run.module.parameters()} == {"cpu"}


def test_a_network_that_looks_at_numbers_is_reckoned_by_its_window():
    class Looking(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"mask": images * float(images.max())}

    model = made().with_run(TorchNetwork(Looking()))
    other = made().with_run(lambda batch: {"mask": batch})
    assert predicted_memory.expected_memory(model, image_of((64, 64, 64))) == predicted_memory.expected_memory(
        other, image_of((64, 64, 64))
    )


def test_where_memory_is_short_fewer_windows_go_through_at_once(monkeypatch):
    model, image = made(batch=64), image_of((64, 64, 64))
    needed = predicted_memory.expected_memory(model, image, batch=8).total
    _with_free(monkeypatch, needed / 0.9 + 1)
    assert predicted_memory.fit_batch_to_memory(model, image, "case").inference.batch == 8
    assert predicted_memory.fit_batch_to_memory(made(batch=2), image, "case").inference.batch == 2


def test_what_cannot_fit_is_refused_with_the_figure_before_anything_is_read(monkeypatch):
    _with_free(monkeypatch, 2**20)
    with pytest.raises(MemoryShortageError, match=r"case: predicting it would take .* GiB .*--region"):
        predicted_memory.fit_batch_to_memory(made(), image_of((512, 512, 512)), "case")


def test_what_is_kept_for_gradients_is_what_autograd_keeps_and_grows_with_the_images():
    module = torch_networks.build_module(made().task, NETWORK).eval()
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(torch.zeros(1, 1, 32, 32, 32, requires_grad=True))
    one, two = (predicted_memory.layer_bytes(module, (n, 1, 32, 32, 32), for_gradients=True) for n in (1, 2))
    assert 0.8 < one / sum(storage.nbytes() for storage in kept.values()) < 1.6
    assert two == 2 * one > 2 * predicted_memory.layer_bytes(module, (1, 1, 32, 32, 32))


def test_a_map_that_would_not_fit_is_refused_with_both_figures_before_anything_is_read(monkeypatch):
    model, image = made(), image_of((512, 512, 300))
    predicted_memory.refuse_explaining(model, image, "case", method="occlusion", for_gradients=False)
    _with_free(monkeypatch, 2**30)
    with pytest.raises(
        MemoryShortageError, match=r"explaining it by occlusion would take [2-9].* GiB .*and 0.90 GiB may"
    ):
        predicted_memory.refuse_explaining(model, image, "case", method="occlusion", for_gradients=False)


def test_of_a_region_only_the_windows_that_touch_it_are_reckoned():
    model, image = made(40, spacing=(1.0, 1.0, 1.0)), image_of((400, 400, 400))
    whole, part = (predicted_memory.expected_memory(model, image, region=one) for one in (None, (slice(100, 140),) * 3))
    assert part.sums < whole.sums / 4
    assert (part.network, part.result) == (whole.network, whole.result)
    assert predicted_memory.expected_memory(model, image, region=(slice(0, 400),) * 3) == whole


def test_of_a_cascade_the_stage_that_takes_most_is_reckoned():
    first, second, image = made(40), made(2), image_of((96, 96, 96))
    cascade = replace(second, first=first)
    assert predicted_memory.expected_memory(cascade, image) == predicted_memory.expected_memory(first, image)
    turned = replace(first, first=second)
    # The labels are brought to the second's grid part by part: they are held once, as the first has them.
    assert (
        predicted_memory.expected_memory(turned, image).total
        == own_peak_of(first, image) + predicted_memory.expected_memory(second, image).result
    )


def own_peak_of(model, image) -> int:
    return predicted_memory.expected_memory(model, image).total


def test_each_stage_of_a_cascade_is_given_fewer_windows_where_memory_is_short(monkeypatch):
    first, second, image = made(batch=8), made(batch=8), image_of((64, 64, 64))
    cascade = replace(second, first=first)
    _with_free(monkeypatch, predicted_memory.expected_memory(cascade, image, batch=4).total / 0.9 - 1)
    fitting = predicted_memory.fit_batch_to_memory(cascade, image, "case")
    assert fitting.first.inference.batch < 8
    assert fitting.inference.batch < 8


def test_an_expectation_says_what_it_is_made_of():
    assert str(ExpectedMemory(2**30, 2**29, 0, 0)) == (
        "1.50 GiB (1.00 for the image, 0.50 for the network, 0.00 for sums, 0.00 for the result)"
    )


def _with_free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    """As on a machine with so many bytes free."""
    found = psutil.virtual_memory()._replace(available=int(size))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: found)


def test_of_several_members_the_largest_counts_and_what_each_has_said_waits_for_the_others():
    one, image = made(), image_of((64, 64, 64))
    wide = {**NETWORK, "size": {**NETWORK["size"], "width": 32, "widest": 64}}
    large = replace(one, networks=Networks(TorchNetwork(torch_networks.build_module(one.task, wide).eval()), wide))
    both = ensemble.averaged_model([one, large], one.task, one.inference)
    outputs = 4 * 3 * 32**3  # float32 of two labels and the background in one window
    assert (
        predicted_memory.expected_memory(both, image).network
        == predicted_memory.expected_memory(large, image).network + 2 * outputs
    )
    again = ensemble.averaged_model([one, one, one], one.task, one.inference)
    assert (
        predicted_memory.expected_memory(again, image).network
        == predicted_memory.expected_memory(one, image).network + 3 * outputs
    )
