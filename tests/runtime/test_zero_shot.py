"""Models of images and texts of other programs: similarities equal those of open_clip and transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import hilum
from hilum.errors import IntegrityError
from hilum.networks.layouts.text_layouts import DEVIATION, MEAN

TEXTS = {"normal": ["no sign of pneumonia", "clear lungs"], "ill": ["pneumonia of the left lobe"]}
WORDS = sorted({word for texts in TEXTS.values() for text in texts for word in text.split()})


def written_bert(folder: Path):
    """A BERT of three small layers with random weights, and its tokenizer, as transformers writes them."""
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    settings = transformers.BertConfig(
        vocab_size=5 + len(WORDS), hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
    )
    settings.save_pretrained(folder)
    return transformers.BertModel(settings).eval(), tokenizer


def adopted_logits(tmp_path: Path, program: str, weights: dict, picture: np.ndarray) -> np.ndarray:
    """The differences of logits by the package that `adopt` writes."""
    save_file({name: one.contiguous() for name, one in weights.items()}, tmp_path / "model.safetensors")
    (tmp_path / "classes.json").write_text(json.dumps(TEXTS))
    Image.fromarray(picture).save(tmp_path / "picture.png")
    known = {"classes": tmp_path / "classes.json", "text": tmp_path / "bert", "backends": ()}
    hilum.adopt(tmp_path / "model.safetensors", program=program, out=tmp_path / "package", **known)
    model = hilum.load(tmp_path / "package", device="cpu")
    image, _ = model.preprocessing(hilum.read(tmp_path / "picture.png"), "picture")
    [logits] = model.networks.run(image[None])["class"]
    return logits


def picture_and_input(seed: int = 0):
    """A picture of the right size, and what both programs make of it."""
    picture = np.random.default_rng(seed).integers(0, 255, (224, 224, 3)).astype(np.uint8)
    scaled = (picture / 255 - MEAN) / DEVIATION
    return picture, torch.from_numpy(scaled.astype(np.float32)).permute(2, 0, 1)[None]


def expected_logits(image: torch.Tensor, vectors: list[torch.Tensor], scale: float) -> np.ndarray:
    """Scaled cosines of an image with the mean directions of the texts of each class."""
    normal = torch.nn.functional.normalize
    means = torch.stack([normal(normal(own, dim=1).mean(dim=0), dim=0) for own in vectors])
    return (scale * normal(image, dim=1) @ means.T)[0].numpy()


@pytest.mark.whole
def test_similarities_are_those_of_open_clip_and_of_medclip(tmp_path):
    """A vision transformer with a BERT as BiomedCLIP has them, and a ResNet with a BERT as MedCLIP's code has them."""
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    written_bert(tmp_path / "a" / "bert")
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "", "timm_proj": "linear", "image_size": 224}
    of_text = {"hf_model_name": str(tmp_path / "a" / "bert"), "hf_proj_type": "mlp", "context_length": 16}
    of_text |= {"hf_pooler_type": "cls_last_hidden_state_pooler", "hf_model_pretrained": False}
    clip = open_clip.CustomTextCLIP(48, vision, of_text).eval()
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tmp_path / "a" / "bert"), context_length=16)
    picture, seen = picture_and_input()
    with torch.no_grad():
        vectors = [clip.encode_text(tokenizer(texts)) for texts in TEXTS.values()]
        scale = float(clip.logit_scale.exp())
        expected = expected_logits(clip.encode_image(seen), vectors, scale)
    found = adopted_logits(tmp_path / "a", "openclip", clip.state_dict(), picture)
    assert found / scale == pytest.approx(expected / scale, abs=1e-5)

    timm = pytest.importorskip("timm")
    bert, tokenizer = written_bert(tmp_path / "b" / "bert")
    body, fc, last = timm.create_model("resnet18", num_classes=0).eval(), torch.randn(24, 512), torch.randn(24, 32)

    def vector(text: str) -> torch.Tensor:
        states = bert(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        return torch.stack([states[1], states[2], states[-1]]).permute(1, 0, 2, 3).mean(2).mean(1) @ last.T

    with torch.no_grad():
        vectors = [torch.cat([vector(text) for text in texts]) for texts in TEXTS.values()]
        expected = expected_logits(body(seen) @ fc.T, vectors, 1 / 0.07)
    weights = {f"vision_model.model.{name}": one for name, one in body.state_dict().items()}
    weights |= {f"text_model.model.{name}": one for name, one in bert.state_dict().items()}
    weights |= {"vision_model.model.fc.weight": fc, "text_model.projection_head.weight": last}
    weights |= {"logit_scale": torch.tensor(1 / 0.07).log()}
    found = adopted_logits(tmp_path / "b", "medclip", weights, picture)
    assert found * 0.07 == pytest.approx(expected * 0.07, abs=1e-5)


def test_weights_of_one_side_are_refused(tmp_path):
    save_file({"visual.trunk.patch_embed.proj.weight": torch.zeros(1)}, tmp_path / "model.safetensors")
    (tmp_path / "classes.json").write_text(json.dumps(TEXTS))
    known = {"classes": tmp_path / "classes.json", "text": tmp_path, "out": tmp_path / "package"}
    with pytest.raises(IntegrityError, match="holds no weights of openclip for images and texts"):
        hilum.adopt(tmp_path / "model.safetensors", program="openclip", **known)
