"""Image and text: an image lies close to what its report says, and far from what other reports say.

Radford et al., "CLIP", ICML 2021, arXiv:2103.00020; by single pairs Zhai et al., "SigLIP", arXiv:2303.15343;
with a table in place of reports Hager et al., CVPR 2023, arXiv:2303.14080
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from hilum.errors import PlanError
from hilum.lazy import torch
from hilum.networks import text_networks
from hilum.objectives.objective_terms import EMBEDDING, NUMBERS, Needs, Objective, ObjectiveStep
from hilum.tasks import Task
from hilum.values import Dataset, Decision, Fingerprint, StatedSettings

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

CLIP = "arXiv:2103.00020"
TEXT = "text"
TEXTS = "texts"
TABLE = "table"
COVARIATES = "covariates"
# The logarithms of CLIP's first scale and of its limit, and SigLIP's first scale and shift.
SCALE = math.log(1 / 0.07)
MOST = math.log(100)
SIGMOID_SCALE = math.log(10)
SHIFT = -10.0


@dataclass(frozen=True)
class ImageText(Objective):
    """The loss of finding an image's text among those of other patients, and its image for a text.

    Of a report some sentences are sampled in any order. Equal texts, and texts of one patient, are never negatives.
    compares: "softmax": each text with all others, by cross-entropy; "sigmoid": each pair by itself, arXiv:2303.15343
    encoder:  folder of a BERT with its tokenizer, of which two layers learn; None: one is learnt from the texts
    other:    the other side: texts, or the covariates of a table
    columns:  {covariate: how it becomes numbers} of the table, as in `network.context`; a person may give names
    """

    compares: Literal["softmax", "sigmoid"] = "softmax"
    encoder: str | None = None
    other: Literal["texts", "covariates"] = "texts"
    columns: Any = None

    needs: ClassVar[Needs] = Needs(labels=False, texts=True)
    head: ClassVar[str] = EMBEDDING

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> Mapping[str, Decision]:
        """No mirrors, because texts name sides."""
        trained = {one.id for one in fingerprint.cases}
        known = sum(case.id in trained and TEXT in case.references for case in dataset)
        because = f"{known} of {len(trained)} training images have a text, of which each is compared with all others"
        return {
            "compares": Decision("softmax", because, CLIP),
            "augmentation.flips": Decision([], "texts may name a side, and in the mirror it would be the wrong one"),
        }

    @classmethod
    def check_data(cls, dataset: Dataset, fingerprint: Fingerprint, section: StatedSettings) -> None:
        """Raise PlanError for data without texts, where covariates were not asked for."""
        trained = {one.id for one in fingerprint.cases}
        known = sum(case.id in trained and TEXT in case.references for case in dataset)
        if known < 2 and section["other"] != COVARIATES:
            remedy = (
                "Give a table with a column of texts: --column image=FILE,text=REPORT, or let its covariates be the "
                "other side: --set image_text.other=covariates"
            )
            raise PlanError(f"image_text needs texts, and {known} cases have one", "objectives.terms", remedy)

    def refusal(self, task: Task) -> str:
        """Refusal: it teaches numbers for the whole image."""
        return "" if EMBEDDING in task.heads else "it teaches numbers for the whole image (--set task.head=embedding)"

    @property
    def fewest(self) -> int:
        """Two, of which one is compared with the other."""
        return 2

    def parts(self, network: Module, features: int) -> Module:
        """The network of texts or of covariates, and the scale of similarities."""
        starts = (SIGMOID_SCALE, SHIFT) if self.compares == "sigmoid" else (SCALE, 0.0)
        parts: Any = torch.nn.ModuleDict({} if self.columns_read else {TEXT: self._text_side()})
        parts.register_parameter("scale", torch.nn.Parameter(torch.tensor(starts[0])))
        parts.register_parameter("shift", torch.nn.Parameter(torch.tensor(starts[1])))
        return cast("Module", parts)

    @property
    def columns_read(self) -> StatedSettings | None:
        """The covariates that are its other side."""
        return self.columns if self.other == COVARIATES else None

    def count_columns(self, parts: Any, count: int) -> None:
        """Make the network of covariates, of three layers."""
        if self.columns_read:
            layers = [torch.nn.Linear(first, NUMBERS) for first in (count, NUMBERS, NUMBERS)]
            parts[TABLE] = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])

    def _text_side(self) -> Module:
        if self.encoder is None:
            return text_networks.LearntText(NUMBERS)
        return text_networks.BertText(NUMBERS, self.encoder)

    def read_texts(self, parts: Any, texts: Sequence[str], patients: Sequence[str]) -> None:
        """Learn the words of the training texts, where these are its other side."""
        if not self.columns_read:
            parts[TEXT].learn_words(texts, patients)

    def losses(self, step: ObjectiveStep) -> Tensor:
        """Losses of each image; 0 of one without a text, which is nobody's negative either."""
        functional = torch.nn.functional
        texts = step.labelled.texts
        columns = step.labelled.columns
        images = functional.normalize(step.run(step.labelled)[EMBEDDING].float(), dim=1)
        if self.columns_read and columns is not None:  # equal rows count as equal texts do
            texts = tuple(" ".join(f"{number:.6g}" for number in row) for row in columns.tolist())
            others = step.parts[TABLE](columns)
        else:
            others = step.parts[TEXT](texts)
        vectors = functional.normalize(others.float(), dim=1)
        alike = images @ vectors.T * step.parts.scale.clamp(max=MOST).exp()
        is_compared = compared_pairs(texts, step.patients).to(alike.device)
        each = pair_losses if self.compares == "sigmoid" else contrast_losses
        return each(alike + step.parts.shift, is_compared) * is_compared.diagonal()


def compared_pairs(texts: Sequence[str], patients: Sequence[int]) -> Tensor:
    """(batch, batch) which pairs of image and text count: its own, and those of another patient with another text."""
    spoken = [" ".join(one.lower().split()) for one in texts]
    numbers = torch.tensor([spoken.index(one) for one in spoken])
    owners = torch.tensor(patients or range(len(texts)))
    has_text = torch.tensor([bool(one) for one in spoken])
    apart = (numbers[:, None] != numbers[None]) & (owners[:, None] != owners[None])
    return (apart | torch.eye(len(texts), dtype=torch.bool)) & has_text[:, None] & has_text[None]


def contrast_losses(alike: Tensor, is_compared: Tensor) -> Tensor:
    """(batch,) the mean of both cross-entropies of each pair: of its text among texts, and its image among images."""
    kept = alike.masked_fill(~(is_compared | torch.eye(len(alike), dtype=torch.bool, device=alike.device)), -torch.inf)
    return (kept.logsumexp(dim=1) + kept.logsumexp(dim=0)) / 2 - alike.diagonal()


def pair_losses(alike: Tensor, is_compared: Tensor) -> Tensor:
    """(batch,) the logistic losses of an image with all texts: its own belongs to it, the others do not."""
    belongs = 2 * torch.eye(len(alike), device=alike.device) - 1
    return -(torch.nn.functional.logsigmoid(belongs * alike) * is_compared).sum(dim=1)
