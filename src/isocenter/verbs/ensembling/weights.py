"""The weights of an ensemble's members, and what is left to be decided of them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isocenter.planning import settings
from isocenter.reading import ReadingOptions
from isocenter.report import tracked
from isocenter.runs import Unseen, prepared
from isocenter.runtime import Averaged, Model, Network, Preprocessing, averaged_model
from isocenter.tasks import Evidence, Origin, Task, deciding_part, fitted
from isocenter.training import MemberWeights, equal_weights, member_outputs, member_weights
from isocenter.values import SPLITS, Case, Dataset, Decision, Prediction, Split
from isocenter.verbs.ensembling.members import Member, Parts

# How members may be weighted.
FITTED: str = "fitted"
EQUAL: str = "equal"


@dataclass(frozen=True, eq=False)
class Joined:
    """Members as one model that is not tuned yet, with the cases that all of them know.

    parts: {case id: part}, as `parts_of_all` finds them
    """

    members: Sequence[Member]
    model: Model
    dataset: Dataset
    parts: Parts

    def cases(self, part: Split) -> list[Case]:
        """The cases of a part."""
        return [case for case in self.dataset if self.parts.get(case.id) == part]

    @property
    def networks(self) -> list[Network]:
        """The network of each member; for a run of folds their mean."""
        networks, averaged = list(self.model.members), list[Network]()
        for member in self.members:
            own, networks = networks[: len(member.models)], networks[len(member.models) :]
            averaged.append(own[0] if len(own) == 1 else Averaged(tuple(own), self.model.task.average))
        return averaged

    def by_name(self, weights: Sequence[float]) -> dict[str, float]:
        """{member: its weight}"""
        return {one.name: weight for one, weight in zip(self.members, weights, strict=True)}

    def counting(self, weights: Sequence[float]) -> Model:
        """The model whose members count so."""
        assert self.model.average is not None  # noqa: S101 - an ensemble has members
        return replace(self.model, run=replace(self.model.average, shares=_shares(self.by_network(weights))))

    def by_network(self, weights: Sequence[float]) -> list[float]:
        """The weight of each network: the folds of a run have no validation case in common, so they count alike."""
        each = zip(self.members, weights, strict=True)
        return [weight / len(one.models) for one, weight in each for _ in one.models]

    def of_those_that_count(self, weights: Sequence[float], task: Task) -> tuple[list[Path], Model]:
        """The checkpoints of the networks that have a weight, and these as one model."""
        every = [pair for one in self.members for pair in zip(one.checkpoints, one.models, strict=True)]
        kept = [(*pair, weight) for pair, weight in zip(every, self.by_network(weights), strict=True) if weight > 0]
        models, shares = [model for _, model, _ in kept], _shares([weight for *_, weight in kept])
        if len(models) == 1:  # as it is loaded: a mean of one would state that its networks never differ
            model = replace(models[0], task=task, inference=self.model.inference)
        else:
            model = averaged_model(models, task, self.model.inference, shares)
        return [checkpoint for checkpoint, *_ in kept], model


def _shares(weights: Sequence[float]) -> tuple[float, ...] | None:
    """The weights of a mean; None where all are alike."""
    return None if len(set(weights)) == 1 else tuple(weights)


def weights_of(joined: Joined, asked: str, seed: int) -> MemberWeights:
    """The weight of each member: fitted to the validation cases if that was asked for and surely helps."""
    members, cases = joined.members, joined.cases("val")
    if asked == EQUAL:
        return equal_weights(len(members), "equal: asked for")
    if not cases:
        folds = [one.name for one in members if one.is_of_folds]
        why = f", because every fold of {', '.join(folds)} selected on others" if folds else ""
        return equal_weights(len(members), f"equal: no case is left that no member was trained on{why}")
    plan, model = members[0].plan, joined.model
    assert isinstance(model.preprocessing, Preprocessing)  # noqa: S101 - they are runs of ours
    wanted = replace(settings(plan), task=model.task, preprocessing=model.preprocessing)
    ready = prepared(cases, wanted, ReadingOptions.of_plan(plan.options))
    patients = [case.patient for case in cases]
    return member_weights(member_outputs(joined.networks, model.task, model.inference, ready, patients), seed=seed)


def tuned_task(unseen: Unseen, joined: Joined, weighed: MemberWeights) -> tuple[Task, dict[str, Decision]]:
    """The task with thresholds and the like, found on predictions whose weights were fitted without the case."""
    task = joined.model.task
    parts: Mapping[Split, Sequence[Case]] = {name: joined.cases(name) for name in SPLITS}
    part = deciding_part(task, parts)
    if part is None:
        return task, {}
    whole = joined.counting(weighed.shares)
    if weighed.of_case is None or part != "val":
        made = unseen.predicted(whole, task, parts[part])
    else:
        made = _cross_predicted(unseen, joined, parts[part], weighed.of_case)

    def held(task: Task) -> Evidence:
        """Cases that decide nothing else, by the task so far."""
        return Evidence(unseen.predicted(whole, task, parts["calibration"]), parts["calibration"])

    origin: Origin = "training" if part == "train" else "unseen"
    conformal = held if parts["calibration"] else None
    return fitted(task, Evidence(made, parts[part]), origin=origin, conformal=conformal)


def _cross_predicted(
    unseen: Unseen, joined: Joined, cases: Sequence[Case], of_case: Sequence[Sequence[float]]
) -> list[Prediction]:
    """Each case by the weights that were fitted without it and its patient."""
    made = []
    with tracked("predicting cases for the weights") as tracker:
        for done, (case, weights) in enumerate(zip(cases, of_case, strict=True), start=1):
            made.append(unseen.by(joined.counting(weights)).predict(case))
            tracker(done, len(cases))
    return made
