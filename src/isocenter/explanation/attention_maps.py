"""Maps from the attention of a transformer: rollout, plain or weighed by gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from isocenter import networks
from isocenter.explanation.subject import Subject
from isocenter.explanation.unfit import UnfitError


def attention(subject: Subject) -> Tensor:
    """(1, 1, *window) attention rollout, arXiv:2005.00928: the share of each patch in what goes to the heads."""
    return _rolled(subject, "attention", by_gradients=False)


def attention_by_gradients(subject: Subject) -> Tensor:
    """(1, 1, *window) rollout of attention times its gradient, the positive part: Chefer et al., arXiv:2103.15679."""
    return _rolled(subject, "attention_gradients", by_gradients=True)


def _rolled(subject: Subject, name: str, *, by_gradients: bool) -> Tensor:
    if subject.module is None or subject.family is None or not subject.family.attention:
        raise UnfitError(name, "its answer is not computed by attention among all patches of the image")
    if refused := networks.without_rollout(subject.module, subject.family.attention):
        raise UnfitError(name, refused)
    if subject.objective.places is not None:
        raise UnfitError(name, "its answer for each voxel also depends on paths that bypass its attention")
    given = [one for one in (subject.image, subject.context) if one is not None]
    with torch.set_grad_enabled(by_gradients):
        image = given[0].clone().requires_grad_(by_gradients)
        seen = networks.attention(subject.module, image, *given[1:], at=subject.family.attention)
        weights = seen.weights
        if by_gradients:
            gradients = torch.autograd.grad(subject.objective(seen.outputs).sum(), weights)
            weights = [(one * slope).clamp(min=0) for one, slope in zip(weights, gradients, strict=True)]
        flow = networks.rollout(torch.stack(list(weights), dim=1), weighed=by_gradients)
        # That each patch counts for itself is known before any weight is: it would only lift the whole map.
        own = torch.eye(flow.shape[-1], device=flow.device) if by_gradients else 0
        return seen.spread(flow - own).detach()
