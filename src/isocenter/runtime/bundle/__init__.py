"""What stands at the top of a package's `scripts/`: how MONAI's tools and people run a model without Isocenter.

The files of this folder are copied into packages, with all that they import of ours, and only there are they used.
"""

__all__: list[str] = []
