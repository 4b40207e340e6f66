"""Segmentation: a label for every voxel."""

__all__: list[str] = []
