"""The last layer of a trained network fitted anew, so that its calls are as right in every group of people.

A reduction to weighted fits: the price of a group's mistakes rises while they are more, by exponentiated gradient
(Agarwal et al., ICML 2018, arXiv:1803.02453, with the constraints of equalised odds). There the classifier picks one of
the fits by lot for each person; here it is the mean of their weights, so that people who are alike are called alike.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hilum.lazy import torch
from hilum.networks import factory, network_parts
from hilum.runtime import record_files
from hilum.runtime.package.package_contents import WEIGHTS
from hilum.training import _prototype_layer, checkpoint_files
from hilum.training._training_session import TrainingSession
from hilum.training.data.protected_groups import CONSTRAINT, ProtectedGroups
from hilum.values import Floats

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module


# Weighted fits, and steps of each; how far groups may stay apart, and how fast prices rise, as in fairlearn.
ROUNDS = 50
STEPS = 20
SLACK = 0.01
PACE = 2.0


def constrain_last_layer(session: TrainingSession) -> None:
    """Fit the last layer of the weights that a training leaves, where the plan says so; each once."""
    if session.settings.training.fairness != CONSTRAINT:
        return
    best = checkpoint_files.best_checkpoint(session.out)
    module = copy.deepcopy(session.averaged).eval()
    if not best.is_dir():
        _refit(session, session.averaged.eval())
    elif not checkpoint_files.is_refitted(best):
        module.load_state_dict(record_files.read_tensors(best / WEIGHTS))
        _refit(session, module)
        checkpoint_files.rewrite_weights(best, module.state_dict())


def _refit(session: TrainingSession, module: Module) -> None:
    task = session.settings.task
    cases = session.train_cases
    [head] = task.heads
    layer: Any = network_parts.last_layers(module, factory.family_of(session.settings.network.name).features)[head]
    inputs = _inputs(session, module, head)
    classes = task.uncertainty == "classes"
    truth = np.stack([np.atleast_1d(np.asarray(case.target, dtype=np.float64)) for case in cases])
    protected = ProtectedGroups.for_cases(CONSTRAINT, cases)
    assert protected is not None  # noqa: S101 - the method has groups
    # How cases were sampled is taken out of probabilities: what they state of an output of zeros.
    usual = torch.as_tensor(np.asarray(task.probabilities({head: np.zeros(len(layer.bias))})[head]))
    shift = usual.log() if classes else usual.logit()
    with torch.no_grad():
        weights = torch.cat([layer.weight, layer.bias[:, None]], dim=1).cpu()
    refitted = constrained_weights(
        inputs, weights, KnownAnswers.from_truth(truth, protected.groups, classes=classes), shift
    )
    with torch.no_grad():
        layer.weight.copy_(refitted[:, :-1])
        layer.bias.copy_(refitted[:, -1])


def _inputs(session: TrainingSession, module: Module, head: str) -> Tensor:
    """(cases, entries) what the last layer takes of each training case, the mean over its windows."""
    cases = (one.in_memory for one in session.train_cases)
    rows = [values for case in cases for _, values in _prototype_layer.last_inputs(session, module, head, case)]
    return torch.from_numpy(np.stack(rows))


@dataclass(frozen=True, eq=False)
class KnownAnswers:
    """The known answers of cases, each the answer to one question of one case.

    cases, questions, truth: (answers,) whose, which, and the index of the class, or 1 and 0
    cells:   (answers,) number of question, truth and group together
    strata:  (cells,) number of its question and truth
    classes: whether there is one question, which class it is; or for each output whether it is there
    """

    cases: NDArray[np.intp]
    questions: NDArray[np.intp]
    truth: NDArray[np.intp]
    cells: NDArray[np.intp]
    strata: NDArray[np.intp]
    classes: bool

    @classmethod
    def from_truth(cls, truth: Floats, groups: NDArray[np.intp], *, classes: bool) -> KnownAnswers:
        """truth: (cases, questions), NaN where it is not known; groups: (cases,)"""
        cases, questions = np.nonzero(np.isfinite(truth))
        truths = truth[cases, questions].astype(np.intp)
        names, cells = np.unique(np.stack([questions, truths, groups[cases]]), axis=1, return_inverse=True)
        strata = np.unique(names[:2], axis=1, return_inverse=True)[1].reshape(-1)
        return cls(cases, questions, truths, cells.reshape(-1), strata, classes)

    def costs(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """(answers,) what it costs a fit to call each right, and to call it wrong."""
        if not self.classes:
            margins = logits[self.cases, self.questions] * torch.as_tensor(2 * self.truth - 1)
            return torch.nn.functional.softplus(-margins), torch.nn.functional.softplus(margins)
        logs = torch.log_softmax(logits[self.cases], dim=1)
        right = logs[np.arange(len(self.truth)), self.truth]
        return -right, (right - logs.sum(dim=1)) / (logits.shape[1] - 1)

    def apart(self, logits: Tensor) -> Floats:
        """(cells,) how much more often calls are right in a group than among all with the same truth."""
        called = logits.argmax(dim=1)[self.cases] if self.classes else logits[self.cases, self.questions] > 0
        right = called.numpy() == self.truth
        strata = self.strata[self.cells]
        shares = [np.bincount(one, right) / np.bincount(one) for one in (self.cells, strata)]
        return shares[0] - shares[1][self.strata]

    def worth(self, prices: Floats) -> Floats:
        """(answers,) what it is worth to call each right, at the price of each cell; below 0 to call it wrong."""
        strata = self.strata[self.cells]
        by_stratum = np.bincount(self.strata, prices) / np.bincount(strata)
        return 1 - len(self.cells) * ((prices / np.bincount(self.cells))[self.cells] - by_stratum[strata])


def constrained_weights(inputs: Tensor, weights: Tensor, answered: KnownAnswers, shift: Tensor) -> Tensor:
    """The mean of weights of fits at the prices that groups' mistakes come to; (outputs, entries + 1), the bias last.

    inputs:  (cases, entries) of the layer; weights: of training, near which each fit stays
    shift:   (outputs,) what is added to logits before anything is called
    """
    columns = torch.cat([inputs, torch.ones_like(inputs[:, :1])], dim=1).double()
    most = 1 / SLACK
    price = np.zeros((2, len(answered.strata)))
    mean = torch.zeros_like(weights, dtype=torch.double)
    now = weights.double()
    for _ in range(ROUNDS):
        rising = np.exp(price - price.max())
        of_each = most * rising / (np.exp(-price.max()) + rising.sum())
        now = _fit_weights(columns, weights.double(), now, answered, answered.worth(of_each[0] - of_each[1]), shift)
        mean += now / ROUNDS
        apart = answered.apart(columns @ now.T + shift)
        price += PACE / most * np.stack([apart - SLACK, -apart - SLACK])
    return mean.to(weights.dtype)


def _fit_weights(
    columns: Tensor, about: Tensor, start: Tensor, answered: KnownAnswers, worth: Floats, shift: Tensor
) -> Tensor:
    """The weights of least cost, with half the squared distance from `about` as one more case has it."""
    weights = start.clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([weights], max_iter=STEPS, line_search_fn="strong_wolfe")
    gains = torch.as_tensor(worth)

    def cost() -> Tensor:
        """The mean cost of the calls, with its gradient."""
        optimiser.zero_grad()
        right, wrong = answered.costs(columns @ weights.T + shift)
        costs = (gains.clamp(min=0) * right + (-gains).clamp(min=0) * wrong).sum() + ((weights - about) ** 2).sum() / 2
        (total := costs / len(gains)).backward()
        return total

    optimiser.step(cost)
    return weights.detach()
