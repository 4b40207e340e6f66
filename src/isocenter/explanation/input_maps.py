"""Maps from gradients by the input: integrated gradients and SmoothGrad, by captum."""

from __future__ import annotations

import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor

from isocenter.explanation.subject import Subject
from isocenter.explanation.unfit import UnfitError

# Of the path between nothing and the image, arXiv:1703.01365 section 5: 20 to 300.
STEPS = 32
# Noisy copies, and their noise as a share of the image's range, arXiv:1706.03825 section 3.
COPIES, NOISE = 16, 0.15
BATCH = 8


def integrated_gradients(subject: Subject) -> Tensor:
    """(1, channels, *window) the share of each number in the score, arXiv:1703.01365; they sum to what 0 lacks of it.

    0 is what a normalised image has on average.
    """
    method = IntegratedGradients(_Scored(subject, "integrated_gradients"))
    image = torch.nan_to_num(subject.image)
    with torch.enable_grad():
        made = method.attribute(image, baselines=0.0, n_steps=STEPS, internal_batch_size=BATCH)
    return torch.nan_to_num(made.detach().float())


def smoothgrad(subject: Subject, seed: int = 0) -> Tensor:
    """(1, channels, *window) how much the score changes with each number, in the mean of noisy copies."""
    image = torch.nan_to_num(subject.image)
    spread = float(image.max() - image.min()) * NOISE
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = NoiseTunnel(Saliency(_Scored(subject, "smoothgrad")))
        made = method.attribute(
            image, nt_samples=COPIES, nt_samples_batch_size=BATCH, stdevs=max(spread, 1e-12), nt_type="smoothgrad"
        )
    return torch.nan_to_num(made.detach().float())


class _Scored:
    """The subject's score of images; of frames that a clip does not have nothing is made up."""

    def __init__(self, subject: Subject, method: str) -> None:
        self.subject, self.method = subject, method

    def __call__(self, images: Tensor) -> Tensor:
        given = images.masked_fill(torch.isnan(self.subject.image), torch.nan)
        score = self.subject.score(given)
        if torch.is_grad_enabled() and not score.requires_grad:
            raise UnfitError(self.method, "its detections have no gradient with respect to the image")
        return score
