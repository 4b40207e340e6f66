"""An objective: answers to unlabelled images are to be sure (Grandvalet and Bengio, NeurIPS 2004)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Gt

from hilum.objectives.objective_terms import Needs, Objective


@dataclass(frozen=True)
class Sureness(Objective):
    """The entropy of the classes of unlabelled images, in nats.

    temperature: by which logits are divided first
    """

    temperature: Annotated[float, Gt(0.0)] = 1.0

    needs: ClassVar[Needs] = Needs(unlabelled=True)

    def refusal(self, task):
        return "" if "class" in task.heads else "it needs classes that exclude each other"

    def loss(self, step):
        [seen] = step.unlabelled
        logs = (step.run(seen)["class"] / self.temperature).log_softmax(dim=1)
        return -(logs.exp() * logs).sum(dim=1).mean()
