"""NRRD, and Slicer's segmentations in it."""

__all__: list[str] = []
