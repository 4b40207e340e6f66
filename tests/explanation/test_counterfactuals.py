from __future__ import annotations

import pytest
import torch

from hilum.explanation import counterfactuals
from hilum.explanation.case_on_grid import ExplainedScalar, ExplainedWindow
from hilum.explanation.counterfactuals import WEIGHTS, Flip
from hilum.tasks import task_catalogue, task_settings
from matrices import thinned


@pytest.mark.parametrize("shape", thinned(1, [(24, 24), (10, 10, 10)], one_value=True))
def test_where_the_cause_is_known_most_of_the_change_lies_in_it_and_in_the_range_of_the_image(shape):
    """The network looks at one corner alone: what is bright there is "b"."""
    task = task_settings.task_from_settings(
        task_catalogue.task_class("classification"), {"classes": ["a", "b"], "smoothing": 0.0}
    )
    corner = (slice(None), slice(None), *(slice(0, 5) for _ in shape))

    def run(images, context):
        seen = images[corner].flatten(1).mean(dim=1)
        return {"class": torch.stack([torch.zeros_like(seen), 4 * seen - 2], dim=1)}

    image = torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(0)) - 0.3
    image[corner] -= 0.3
    subject = ExplainedWindow(image, None, run, ExplainedScalar(task, "b"))
    flip = Flip(task, "", "b", "a")
    made = [counterfactuals._smallest([subject], shares=(1.0,), flip=flip, weight=weight) for weight in WEIGHTS]
    change = next(one for one in made if run(image + one, None)["class"].argmax() == 1)
    assert change[corner].abs().sum() > 0.8 * change.abs().sum()
    assert image.min() <= (image + change).min()
    assert (image + change).max() <= image.max() + 1e-6
