"""SAM's models from a file to results, as a user adopts them and points at things."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import torch

import hilum
import trained
from hilum.errors import DatasetError, UsageError
from hilum.networks import factory
from hilum.service.configuration import ModelSection
from hilum.service.work.warm_models import WarmModels
from hilum.values import Dense
from sam_models import adapter_of, small_sam, write_waves

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A folder with MedSAM's checkpoint, the adopted model, a picture and a volume."""
    folder = tmp_path_factory.mktemp("prompted")
    torch.save({"model": small_sam().state_dict()}, folder / "medsam.pth")
    hilum.adopt(folder / "medsam.pth", program="medsam", out=folder / "model")
    write_waves(folder / "picture.png", 45, 60)
    x, y, z = np.mgrid[:40, :30, :5]
    smooth = (300 * np.sin(x / 7) * np.cos(y / 9 + z / 3)).astype(np.int16)
    nibabel.Nifti1Image(smooth, np.diag([1, 1, 3, 1])).to_filename(folder / "volume.nii.gz")
    return folder


def test_a_box_in_a_picture_gives_a_label_map_and_the_record_states_it(room, tmp_path):
    done = hilum.predict(
        room / "model", room / "picture.png", box=["10,8,40,35"], point=["20,20:1"], out=tmp_path / "r"
    )
    assert not done.failures
    assert np.unique(np.asarray(PIL.Image.open(tmp_path / "r" / "picture.png"))).tolist() == [0, 1]
    record = json.loads((tmp_path / "r" / "summary.json").read_text())["model"]["prompts"]
    expected = {"label": "object", "unit": "voxel", "boxes": [[10, 8, 40, 35]], "points": [[20, 20, 1]]}
    assert record == {"picture": [expected]}


def test_a_cohort_gets_the_prompts_of_a_file_and_a_label_has_one_value_in_all_cases(room, tmp_path):
    rows = [
        {"case": "volume", "label": "cyst", "boxes": [[5, 5, 1, 25, 25, 4]]},
        {"case": "picture", "label": "edge", "boxes": [[10, 8, 40, 35]]},
        {"case": "picture", "label": "cyst", "points": [[50, 40, 1]]},
    ]
    (tmp_path / "p.json").write_text(json.dumps({"schema": "hilum.prompts", "version": 1, "rows": rows}))
    images = [room / "picture.png", room / "volume.nii.gz"]
    done = hilum.predict(
        room / "model", images, prompts=tmp_path / "p.json", save_probabilities=True, out=tmp_path / "r"
    )
    assert not done.failures
    marked = nibabel.load(tmp_path / "r" / "volume.nii.gz").get_fdata()
    assert np.unique(marked).tolist() == [0, 1] and not marked[..., [0, 4]].any()
    assert pd.read_csv(tmp_path / "r" / "volume.labels.csv")["name"].tolist() == ["cyst", "edge"]
    probable = nibabel.load(tmp_path / "r" / "volume_probabilities.nii.gz").get_fdata()
    sure = abs(probable[..., 1] - probable[..., 0]) > 1e-3  # they are kept in half precision
    assert np.array_equal((probable[..., 1] > probable[..., 0])[sure], (marked == 1)[sure])
    with pytest.raises(DatasetError, match="no input is that case"):
        hilum.predict(room / "model", room / "volume.nii.gz", prompts=tmp_path / "p.json")


def test_boxes_of_a_detector_are_prompts_and_a_case_without_one_is_named(room, tmp_path):
    table = "case,image,label,score,x0,y0,x1,y1\npicture,,nodule,.9,10,8,40,35\npicture,,nodule,.8,42,30,55,44\n"
    (tmp_path / "predictions.csv").write_text(table)
    images = [room / "picture.png", room / "volume.nii.gz"]
    done = hilum.predict(room / "model", images, prompts=tmp_path / "predictions.csv")
    assert [one.cases for one in done.failures] == [("volume",)]
    assert "no prompt is given" in done.failures[0].what
    assert np.asarray(done.predictions["picture"].data).any()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no prompt is given"),
        ({"box": ["1,2,3"]}, "is no box"),
        ({"box": ["a,b,c,d"]}, "holds no numbers"),
        ({"point": ["3,4"]}, "is no point"),
        ({"box": ["1,2,3,4"], "prompts": "p.json"}, "other prompts and --box"),
    ],
)
def test_prompts_that_are_none_are_refused_before_anything_is_read(room, given, words):
    with pytest.raises(UsageError, match=words):
        hilum.predict(room / "model", room / "picture.png", **given)


def test_what_does_not_belong_together_is_not_adopted(room, tmp_path):
    torch.save(adapter_of(small_sam(2)), tmp_path / "adapter.pth")
    torch.save(
        {name: one for name, one in adapter_of(small_sam(2)).items() if "_005" not in name}, tmp_path / "less.pth"
    )
    cases = [
        ({"program": "sam2"}, "no program 'sam2'"),
        ({"program": "sam", "adapter": tmp_path / "adapter.pth"}, "no adapter"),
        ({"program": "samed"}, "base file with an adapter"),
        ({"program": "samed", "adapter": tmp_path / "less.pth"}, "another size"),
        ({"program": "medsam", "fold": 0}, "are of nnU-Net"),
        ({"size": 512}, "are of SAMed"),
        ({}, "not a model of another program"),
    ]
    for given, words in cases:
        with pytest.raises(UsageError, match=words):
            hilum.adopt(room / "medsam.pth", out=tmp_path / "out", **given)
        assert not (tmp_path / "out").exists()


def test_a_node_refuses_a_model_for_which_somebody_has_to_point(room):
    with pytest.raises(UsageError, match="model 'sam': the model answers what a person points at"):
        WarmModels({"sam": ModelSection(path=room / "model")}, 8)["sam"]


def test_an_adopted_model_is_scored_as_its_references_point(room, tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for n in range(3):
        write_waves(tmp_path / "data" / "images" / f"c{n}.png", 45, 60)
        mask = np.zeros((45, 60), np.uint8)
        mask[10:30, 8 + n : 40] = 1
        PIL.Image.fromarray(mask).save(tmp_path / "data" / "labels" / f"c{n}.png")
    done = hilum.evaluate(room / "model", tmp_path / "data", out=tmp_path / "scored", labels="1=square")
    table = pd.read_csv(tmp_path / "scored" / "cases.csv")
    assert set(table["label"]) == {"square"} and len(table) == 3
    assert table[["dice_box", "dice_1", "dice_3", "dice_5"]].notna().all().all()
    assert {row.metric for row in done.rows} == {"dice_box", "dice_1", "dice_3", "dice_5"}


def test_a_training_from_an_adopted_model_sees_prompts_as_channels(room, tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for n in range(12):
        mask = np.zeros((64, 64), np.uint8)
        mask[10:40, 10 + n : 40] = 1
        pictures = {"images": np.random.default_rng(n).integers(0, 255, (64, 64), dtype=np.uint8), "labels": mask}
        for folder, pixels in pictures.items():
            PIL.Image.fromarray(pixels).save(tmp_path / "data" / folder / f"c{n}.png")
    run = hilum.train(
        tmp_path / "data",
        task="prompted",
        labels="1=square",
        start=room / "model",
        out=tmp_path / "run",
        device="cpu",
        threads=1,
        assignments={"training.steps": 2, "training.validations": 1, "training.batch": 2},
    )
    words = json.loads((run.out / "transfer.json").read_text())["words"]
    assert "adapted from 3 to 8 channels" in words and words.startswith("178 of 178 tensors")
    done = hilum.predict(run.out, tmp_path / "data" / "images" / "c0.png", point=["20,20:1"], out=tmp_path / "r")
    assert not done.failures


@pytest.mark.whole
def test_a_checkpoint_of_nninteractives_form_starts_a_training_with_all_its_tensors(tmp_path):
    """Eight channels, the image and seven of prompts, in a residual encoder as nnU-Net stores it; random weights."""
    sizes = {"features": [4, 8], "kernels": [[3, 3, 1], [3, 3, 3]], "strides": [[1, 1, 1], [2, 2, 1]], "blocks": [1, 1]}
    sizes["decoder_convolutions"] = [1]
    known = factory.build("residual_encoder_unet", 8, 3, {"mask": Dense(2)}, sizes).state_dict()
    repeated = {f"decoder.{key}": one for key, one in known.items() if key.startswith("encoder.")}
    torch.save({"network_weights": {**known, **repeated}}, tmp_path / "checkpoint_final.pth")
    run = hilum.train(
        trained.blobs(tmp_path / "data"),
        task="prompted",
        labels=trained.LABELS,
        start=tmp_path / "checkpoint_final.pth",
        out=tmp_path / "run",
        device="cpu",
        threads=1,
        assignments=trained.TWO_STEPS,
    )
    transfer = json.loads((run.out / "transfer.json").read_text())
    found, _, whole, *_ = transfer["words"].split()
    assert (transfer["source"]["name"], found) == ("nnunet_residual", whole)
    assert {row["how"] for row in transfer["rows"]} == {"copied"}
