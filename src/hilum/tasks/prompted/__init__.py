"""Prompted segmentation: the voxels of what a person points at."""

__all__: list[str] = []
