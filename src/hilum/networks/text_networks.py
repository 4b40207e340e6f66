"""Networks of texts, which teach networks of images and stay with the run: no package holds one.

One is learnt from the training texts: a byte-pair encoding (Sennrich et al., arXiv:1508.07909) of words that five
patients or more have, and four layers of attention. Another is a BERT from a folder of Hugging Face's transformers.
"""

from __future__ import annotations

import importlib
import re
import string
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hilum import installation
from hilum.errors import UsageError

VOCABULARY = 4096
LONGEST = 128
WIDTH = 256
HEADS = 4
LAYERS = 4
DROPPED = 0.1
# Of a BERT so many of its last layers learn.
LEARNING = 2
# Patients that share a word, so that the name of one is none.
FEWEST_PATIENTS = 5
WORD = re.compile(r"\w+")
PADDING = 0
UNKNOWN = 1
START = 2
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")


def import_extra(name: str) -> Any:
    """A library of the extra `foundation`; UsageError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"{name} is not installed", "texts", installation.install_line("foundation")) from error


class LearntText(nn.Module):
    """(batch,) texts to (batch, numbers) of any length, by words that `learn_words` has found."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH, padding_idx=PADDING)
        self.places = nn.Embedding(LONGEST, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, DROPPED, nn.functional.gelu, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.last = nn.Linear(WIDTH, numbers)
        self.tokenizer: Any = None

    def learn_words(self, texts: Sequence[str], patients: Sequence[str]) -> None:
        """Learn the byte-pair encoding of these texts, one of a patient each; a word of few patients is left out."""
        tokenizers = import_extra("tokenizers")
        owners = defaultdict[str, set[str]](set)
        for text, patient in zip(texts, patients, strict=True):
            for word in WORD.findall(text.lower()):
                owners[word].add(patient)
        shared = (" ".join(w for w in WORD.findall(one.lower()) if len(owners[w]) >= FEWEST_PATIENTS) for one in texts)
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="[UNK]"))  # noqa: S106 - no password
        tokenizer.normalizer = tokenizers.normalizers.Lowercase()
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["[PAD]", "[UNK]", "[CLS]"],
            initial_alphabet=[*string.ascii_lowercase, *string.digits, *string.punctuation],
            show_progress=False,
        )
        tokenizer.train_from_iterator(shared, trainer)
        self.tokenizer = tokenizer

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return (batch, numbers): the mean over a text's tokens, through one layer."""
        numbers = [[START, *one.ids[: LONGEST - 1]] for one in self.tokenizer.encode_batch(list(texts))]
        longest = max(map(len, numbers))
        filled = [[*one, *[PADDING] * (longest - len(one))] for one in numbers]
        ids = torch.tensor(filled, device=self.last.weight.device)
        is_empty = ids == PADDING
        seen = self.tokens(ids) + self.places(torch.arange(longest, device=ids.device))
        hidden = self.norm(self.layers(seen, src_key_padding_mask=is_empty))
        kept = (~is_empty)[..., None].to(hidden.dtype)
        answer: Tensor = self.last((hidden * kept).sum(dim=1) / kept.sum(dim=1))
        return answer

    def get_extra_state(self) -> Tensor:
        """The encoding as bytes, so that a checkpoint holds it."""
        content = "" if self.tokenizer is None else self.tokenizer.to_str()
        return torch.frombuffer(bytearray(content.encode() or b" "), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the encoding from a checkpoint."""
        content = bytes(state.cpu().numpy()).decode().strip()
        self.tokenizer = import_extra("tokenizers").Tokenizer.from_str(content) if content else None


class BertText(nn.Module):
    """(batch,) texts to (batch, numbers) by a BERT from a folder, of which the last two layers learn."""

    def __init__(self, numbers: int, folder: str) -> None:
        super().__init__()
        self.tokenizer = open_tokenizer(Path(folder))
        transformers = import_extra("transformers")
        self.model = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).requires_grad_(False)
        for layer in self.model.encoder.layer[-LEARNING:]:
            layer.requires_grad_(True)
        self.last = nn.Linear(self.model.config.hidden_size, numbers)

    def learn_words(self, texts: Sequence[str], patients: Sequence[str]) -> None:
        """Nothing: its words are those of the folder."""

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return (batch, numbers): the first token's last state, through one layer."""
        entries = self.tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_tensors="pt")
        hidden = self.model(**entries.to(self.last.weight.device)).last_hidden_state
        answer: Tensor = self.last(hidden[:, 0])
        return answer


def open_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder of Hugging Face's transformers; UsageError where there is none, or no settings."""
    lacking = [] if (folder / "config.json").is_file() else ["config.json"]
    lacking += [] if any((folder / name).is_file() for name in TOKENIZER_FILES) else [" or ".join(TOKENIZER_FILES)]
    if lacking:
        remedy = "Give the folder of a BERT with its tokenizer, as save_pretrained of transformers writes it"
        raise UsageError(f"has no {' and no '.join(lacking)}", str(folder), remedy)
    transformers = import_extra("transformers")
    return transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
