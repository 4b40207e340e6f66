"""NRRD, and Slicer's segmentations in it."""
