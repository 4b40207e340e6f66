"""Texts teach a network of images: what each pair costs, who is never a negative, and what becomes of the words."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

import hilum
import trained
from hilum.errors import PlanError, UsageError
from hilum.networks import text_networks
from hilum.networks.text_networks import LearntText
from hilum.objectives import image_text
from hilum.planning import plan_file
from hilum.runtime import record_files
from hilum.training.data.batch_loading import Loader
from hilum.training.data.prepared_store import PreparedCase
from hilum.values.dataset_cases import CaseTexts
from texts import WORD, reported_pictures

ALL = torch.ones(2, 2, dtype=torch.bool)


def test_the_softmax_is_that_of_clip_by_hand():
    """Similarities 2 and 0, 1 and 3: each image among texts, each text among images."""
    alike = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-2))]
    columns = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(-3))]
    expected = [(row + column) / 2 for row, column in zip(rows, columns, strict=True)]
    assert image_text.contrast_losses(alike, ALL).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_sigmoid_is_that_of_siglip_by_hand():
    alike = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    expected = [math.log(1 + math.exp(-2)) + math.log(2), math.log(1 + math.exp(1)) + math.log(1 + math.exp(-3))]
    assert image_text.pair_losses(alike, ALL).tolist() == pytest.approx(expected, rel=1e-5)


def test_equal_texts_and_texts_of_one_patient_are_never_negatives():
    compared = image_text.compared_pairs(["No nodule.", "no  NODULE.", "A nodule.", "Effusion.", ""], [0, 1, 2, 2, 3])
    assert compared.tolist() == [
        [True, False, True, True, False],
        [False, True, True, True, False],
        [True, True, True, False, False],
        [True, True, False, True, False],
        [False] * 5,
    ]
    kept = torch.tensor([[5.0, 9.0], [9.0, 5.0]])
    assert image_text.contrast_losses(kept, torch.eye(2, dtype=torch.bool)).tolist() == [0.0, 0.0]


def test_some_sentences_of_one_text_are_sampled_in_any_order_by_seed_and_step_alone():
    texts = CaseTexts(("Heart normal. No effusion. Nodule left.", "Second report."))
    target, image = np.zeros(()), np.zeros((1, 4, 4), np.float32)
    cases = [PreparedCase(name, image, target, (), (1.0, 1.0), texts=own) for name, own in (("a", texts), ("b", None))]
    loader = Loader(cases, (4, 4), 2, 0.0, seed=0)
    batches = [loader.of_step(step) for step in range(40)]
    by_case = [(n, text) for batch in batches for n, text in zip(batch.cases, batch.texts, strict=True)]
    texts_seen = {text for n, text in by_case if n == 0}
    assert "Second report." in texts_seen
    assert {"Heart normal.", "No effusion.", "Nodule left."} <= {one.strip() for one in texts_seen}
    assert any(one.startswith("Nodule left. ") for one in texts_seen)
    assert {text for n, text in by_case if n == 1} == {""}
    assert loader.of_step(3).texts == batches[3].texts


def test_words_of_fewer_than_five_patients_are_not_learnt_and_a_checkpoint_keeps_the_others():
    torch.manual_seed(0)
    network = LearntText(8).eval()
    texts = [f"{WORD} in the lung of mustermann" if n else f"{WORD} and {WORD}" for n in range(5)]
    network.learn_words([*texts, "mustermann"], ["p0", "p1", "p2", "p3", "p4", "p1"])
    assert WORD in network.tokenizer.get_vocab()
    assert not [word for word in network.tokenizer.get_vocab() if word in "mustermann" and len(word) > 1]
    again = LearntText(8).eval()
    again.load_state_dict(network.state_dict())
    both = [one([f"No {WORD}.", ""]) for one in (network, again)]
    assert torch.equal(*both) and both[0].isfinite().all()
    alone = network([f"No {WORD}."])
    assert torch.allclose(both[0][:1], alone, atol=1e-5)  # what others of the batch fill up does not matter


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"has no tokenizer\.json or vocab\.txt"):
        text_networks.open_tokenizer(tmp_path)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A network that reports have taught in six steps."""
    root = tmp_path_factory.mktemp("texts")
    data = reported_pictures(root / "data")
    assignments = {**trained.FEW_STEPS, "network.size": trained.SMALL_RESNET, "training.batch": 4}
    columns = "image=file,text=report,patient=patient"
    known = {"column": columns, "objective": "image_text", "assignments": assignments, "device": "cpu", "threads": 1}
    return hilum.pretrain([data], out=root / "run", **known)


def test_reports_teach_and_no_word_of_them_leaves_the_last_checkpoint(taught):
    holding = [
        path.relative_to(taught.out)
        for path in taught.out.rglob("*")
        if path.is_file() and WORD.encode() in path.read_bytes()
    ]
    assert [str(one) for one in holding] == ["checkpoints/last/objectives.safetensors"]
    assert WORD not in repr(taught)
    plan = (taught.out / "plan.yaml").read_text()
    assert "16 of 16 training images have a text" in plan.replace("\n", " ")


def test_a_table_without_texts_cannot_teach_so(tmp_path):
    data = reported_pictures(tmp_path / "data")
    with pytest.raises(PlanError, match="image_text needs texts, and 0 cases have one"):
        hilum.pretrain([data], column="image=file,patient=patient", objective="image_text", out=tmp_path / "run")


def test_texts_of_classes_are_the_last_layer_of_a_package_without_a_text_side(taught, tmp_path):
    """The probabilities are the softmax of the scaled cosines of image and text, by the run's own two sides."""
    texts = {"normal": [f"No {WORD}.", "Heart normal."], "ill": [f"A {WORD} in the left lobe."]}
    (tmp_path / "classes.json").write_text(json.dumps(texts))
    picture = taught.out.parent / "data" / "1.png"
    adopted = hilum.adopt(taught.out, classes=tmp_path / "classes.json", out=tmp_path / "package", backends=())
    model = hilum.load(tmp_path / "package", device="cpu")
    found = model.predict(picture).probabilities
    last = hilum.load(taught.out / "checkpoints" / "last", device="cpu")
    tensors = record_files.read_tensors(taught.out / "checkpoints" / "last" / "objectives.safetensors")
    parts = image_text.ImageText().parts(torch.nn.Module(), 0)
    parts.load_state_dict({name.removeprefix("parts.image_text."): one for name, one in tensors.items()})
    with torch.no_grad():
        vectors = [
            torch.nn.functional.normalize(parts.eval()["text"](own), dim=1).mean(dim=0) for own in texts.values()
        ]
    image, _ = last.preprocessing(hilum.read(picture), "picture")
    numbers = last.networks.run(image[None])["embedding"][0]
    cosines = [float(np.dot(numbers, v) / np.linalg.norm(numbers) / np.linalg.norm(v)) for v in vectors]
    expected = np.exp(float(parts.scale.exp().detach()) * np.array(cosines))
    assert [*found.values()] == pytest.approx((expected / expected.sum()).tolist(), abs=1e-5)
    assert [*found] == ["normal", "ill"]
    assert not [
        path for path in (tmp_path / "package").rglob("*") if path.is_file() and WORD.encode() in path.read_bytes()
    ]
    assert "they are not calibrated" in (tmp_path / "package" / "docs" / "README.md").read_text().replace("\n", " ")
    assert adopted.origin == "zero-shot of run"
    assert {one.calibrated for one in model.task.results(model.predict(picture))} == {False}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"ill": ["a nodule"]}', "names no two classes"),
        ('{"ill": ["a nodule"], "normal": []}', "gives the class 'normal' no text"),
        ('{"ill": ["a nodule"], "normal": [" "]}', "gives the class 'normal' no text"),
        ("nothing", "cannot be read"),
    ],
)
def test_a_class_without_a_text_is_refused(taught, tmp_path, content, words):
    (tmp_path / "classes.json").write_text(content)
    with pytest.raises(UsageError, match=words):
        hilum.adopt(taught.out, classes=tmp_path / "classes.json", out=tmp_path / "package")


def test_what_no_text_has_taught_has_no_classes_by_texts(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "classes.json").write_text('{"ill": ["a nodule"], "normal": ["none"]}')
    known = {"classes": tmp_path / "classes.json", "out": tmp_path / "package"}
    with pytest.raises(UsageError, match="is no run whose network texts have taught"):
        hilum.adopt(tmp_path / "run", **known)
    with pytest.raises(UsageError, match="there is no program 'clap'"):
        hilum.adopt(tmp_path / "run", program="clap", **known)
    with pytest.raises(UsageError, match="need the settings and the tokenizer of a BERT"):
        hilum.adopt(tmp_path / "run", program="openclip", **known)


def test_a_table_is_the_other_side_where_covariates_are_asked_for(tmp_path):
    """The first layer has an entry a number and one a level; the column of texts is left out."""
    data = reported_pictures(tmp_path / "data")
    table = pd.read_csv(data).assign(age=lambda one: 40 + one.index % 7, sex=lambda one: ["f", "m"] * 12)
    table.drop(columns="report").to_csv(data, index=False)
    chosen = {**trained.TWO_STEPS, "network.size": trained.SMALL_RESNET, "training.batch": 4}
    by_hand = {**chosen, "image_text.other": "covariates"}
    known = {"objective": "image_text", "assignments": by_hand, "device": "cpu", "threads": 1}
    run = hilum.pretrain([data], column="image=file,patient=patient", out=tmp_path / "run", **known)
    plan = plan_file.read_plan(run.out / "plan.yaml")
    assert plan["image_text.other"] == "covariates"
    assert set(plan["image_text.columns"]) == {"age", "sex"}
    tensors = record_files.read_tensors(run.out / "checkpoints" / "last" / "objectives.safetensors")
    assert tensors["parts.image_text.table.0.weight"].shape == (128, 3)
    assert plan["network.context"] is None  # the network itself gets images alone
    (tmp_path / "classes.json").write_text('{"ill": ["a nodule"], "normal": ["none"]}')
    with pytest.raises(UsageError, match="is no run that texts have taught"):
        hilum.adopt(run.out, classes=tmp_path / "classes.json", out=tmp_path / "package")
