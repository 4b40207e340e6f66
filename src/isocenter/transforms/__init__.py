"""N-D geometry and intensity of arrays: no files, no networks, no name of a task."""

from isocenter.transforms.align import aligned
from isocenter.transforms.augment import Augmentation
from isocenter.transforms.augment_spatial import sides_changed
from isocenter.transforms.channels import COLOUR, GREY, recoloured, stacked, without_alpha
from isocenter.transforms.draws import generator, order
from isocenter.transforms.intensity import Normalisation
from isocenter.transforms.labels import largest, resample_labels, resample_largest
from isocenter.transforms.mirroring import check_flips, names_sides
from isocenter.transforms.orient import content, padding, permuted, unpermuted
from isocenter.transforms.phantom import phantom
from isocenter.transforms.resample import Order, Taps, along, resample, taps

__all__ = [
    "COLOUR",
    "GREY",
    "Augmentation",
    "Normalisation",
    "Order",
    "Taps",
    "aligned",
    "along",
    "check_flips",
    "content",
    "generator",
    "largest",
    "names_sides",
    "order",
    "padding",
    "permuted",
    "phantom",
    "recoloured",
    "resample",
    "resample_labels",
    "resample_largest",
    "sides_changed",
    "stacked",
    "taps",
    "unpermuted",
    "without_alpha",
]
