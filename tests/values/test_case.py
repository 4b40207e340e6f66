from __future__ import annotations

import pickle

import numpy as np

from hilum.values import Case, Geometry, Image

GRID = Geometry.of_pixels((2, 2))


def test_a_case_with_fewer_images_tells_which_they_are():
    images = {name: Image(np.full((1, 2, 2), n), GRID) for n, name in enumerate(("0", "1", "FLAIR"))}
    own = Case("c", "p", images, covariates={"age": 50}).with_images(["1", "FLAIR"])
    assert {name: image.channels for name, image in own.images.items()} == {"0001": ("0001",), "FLAIR": ("FLAIR",)}
    assert own.images["0001"].data.max() == 1
    assert (own.id, own.patient, own.covariates) == ("c", "p", {"age": 50})
    again = pickle.loads(pickle.dumps(own))  # noqa: S301 - our own bytes
    assert again.images["FLAIR"].channels == ("FLAIR",)


def test_an_image_of_several_channels_keeps_their_names_behind_its_own():
    dixon = Image(np.zeros((2, 2, 2)), GRID, channels=("fat", "water"))
    assert dixon.with_image_name("dixon").channels == ("dixon:fat", "dixon:water")
