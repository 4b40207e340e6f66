from __future__ import annotations

import ast
from pathlib import Path

import pytest

from hilum import networks
from hilum.errors import PlanError
from hilum.networks import factory
from hilum.runtime.package import package_writing, script_sources
from hilum.runtime.package.script_sources import TOP
from hilum.tasks import index, task_catalogue
from matrices import only

# What a bundle may need beside the standard library: what MONAI brings, and what reads images.
ALLOWED = {"torch", "numpy", "scipy", "nibabel", "PIL", "imagecodecs", "timm", "monai", "torchvision"}


def imported(text: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module))
    return found


@pytest.fixture(scope="module", params=only(["classification", "detection", "segmentation"], sorted(index.TASKS)))
def sources(request):
    kind = task_catalogue.task_class(request.param)
    roots = {f"{TOP}.inference": (), f"{TOP}.formats": ("pictures",), kind.__module__: (kind.__qualname__,)}
    return script_sources.collect_sources(roots, package_writing.prediction_members([kind]), {}, "stamp")


def test_no_import_of_hilum_is_left(sources):
    for path, text in sources.texts.items():
        assert not {name for name in imported(text) if name.partition(".")[0] == "hilum"}, path


def test_what_travels_needs_no_more_than_monai_and_readers_of_images(sources):
    assert sources.needs <= ALLOWED


def test_every_relative_import_finds_its_file_and_its_name(sources):
    for path, text in sources.texts.items():
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ImportFrom) or not node.level:
                continue
            base = Path(path).parents[node.level - 1]
            for alias in node.names:
                files = [base / f"{(node.module or '').replace('.', '/')}.py"]
                files += [base / (node.module or "").replace(".", "/") / f"{alias.name}.py"]
                [found] = {one.as_posix() for one in files} & set(sources.texts)
                assert alias.name == Path(found).stem or alias.name in sources.texts[found], (path, alias.name)


def test_what_only_training_scoring_or_reporting_needs_stays_behind(sources):
    everything = "\n".join(sources.texts.values())
    for word in ("def loss(", "def score(", "def figures(", "import pandas", "matplotlib"):
        assert word not in everything


# What files have in common, and travels with each; `context_fusion` with all that have a choice of its methods, and
# `layers` with nearly all.
SHARED = {
    "axial": {"transformer_blocks"},
    "backbone": {"context_fusion", "transformer_blocks"},
    "clip_gru": {"context_fusion", "resnet", "transformer_blocks"},
    "clip_lstm": {"context_fusion", "resnet", "transformer_blocks"},
    "clips": {"context_fusion", "resnet", "transformer_blocks"},
    "coatnet": {"transformer_blocks"},
    "convnext": {"context_fusion"},
    "deeplab": {"inflated_resnet"},
    "efficientnet": {"mobilenet", "context_fusion"},
    "faster_rcnn": {"pyramid", "resnet_pyramid"},
    "fcos": {"pyramid", "resnet_pyramid"},
    "fusion": {"context_fusion", "unet"},
    "mask_rcnn": {"resnet_pyramid"},
    "mobilenet": {"context_fusion"},
    "multiscale_unet": {"unet"},
    "resnet": {"context_fusion"},
    "mil": {"bag_pooling", "inflated_resnet", "network_family", "tile_encoders"},
    "resnet_slices": {"bag_pooling", "inflated_resnet"},
    "retinanet": {"pyramid", "resnet_pyramid", "retinanet_volumes"},
    "slide_windows": {"bag_pooling", "inflated_resnet", "network_family", "tile_encoders", "transformer_blocks"},
    "transunet": {"transformer_blocks", "unet", "vit"},
    "unet_slices": {"unet"},
    "unetr": {"transformer_blocks"},
    "vit": {"transformer_blocks"},
    "yolox": {"pyramid"},
    **{key: {"context_fusion"} for key in ("alexnet", "densenet", "inception", "lenet", "vgg")},
}


# One of each library, and of ours those that share files.
SOME_FAMILIES = ("fusion", "inflated_resnet", "lenet", "resnet", "swin_unetr", "timm", "unet", "vnet")


@pytest.mark.parametrize("name", only(SOME_FAMILIES, sorted(networks.NETWORKS)))
def test_each_family_of_network_travels_as_its_file_that_needs_torch_or_a_library_of_networks(name):
    path, function = factory.builder_source(name)
    module = f"hilum.networks.{path.stem}"
    found = script_sources.collect_sources({module: (function,)}, {}, {module: path.read_text()}, "stamp")
    expected = {
        path.stem,
        *SHARED.get(name, SHARED.get(path.stem, ())),
        *(["context_fusion"] if factory.family_of(name).fusion_methods else []),
    }
    # MONAI's detector is imported late, through `lazy`.
    copied = {one for one in found.texts if not one.endswith("__init__.py")} - {"lazy.py", "networks/common_layers.py"}
    assert copied == {f"networks/{one}.py" for one in expected}
    text = found.texts[f"networks/{path.stem}.py"]
    assert f"def {function}(" in text or f"class {function}(" in text
    assert found.needs <= {"torch", "torchvision", "timm", "monai", "einops"}


def test_every_file_says_where_it_comes_from(sources):
    assert {text.partition("\n")[0] for text in sources.texts.values()} == {"# stamp"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("from . import other", "from its own package"),
        ("import hilum.values", "as a whole"),
        ("from hilum.runtime import nothing_of_this_name", "in its index"),
    ],
)
def test_a_file_whose_imports_cannot_follow_is_refused(text, reason):
    with pytest.raises(PlanError, match=reason):
        script_sources.collect_sources({"hilum.networks.theirs": ()}, {}, {"hilum.networks.theirs": text}, "stamp")


def test_what_is_imported_for_its_type_alone_does_not_travel():
    text = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from hilum.tasks import Task\n\nx: 'Task'\n"
    found = script_sources.collect_sources({"hilum.networks.theirs": ()}, {}, {"hilum.networks.theirs": text}, "stamp")
    assert "from typing import Any as Task" in found.texts["networks/theirs.py"]
    assert set(found.texts) == {"__init__.py", "networks/__init__.py", "networks/theirs.py"}


def test_of_a_module_that_is_called_by_name_only_what_is_asked_of_it_travels():
    text = "from hilum.values import slabs\n\n\ndef labels(map):\n    return slabs.label_voxels(map)\n"
    found = script_sources.collect_sources({"hilum.networks.theirs": ()}, {}, {"hilum.networks.theirs": text}, "stamp")
    assert "from ..values import slabs" in found.texts["networks/theirs.py"]
    assert "def label_voxels(" in found.texts["values/slabs.py"]
    handed = text.replace("return ", "return slabs, ")
    whole = script_sources.collect_sources(
        {"hilum.networks.theirs": ()}, {}, {"hilum.networks.theirs": handed}, "stamp"
    )
    assert len(whole.texts["values/slabs.py"]) > len(found.texts["values/slabs.py"])
