"""Packages: a model as a MONAI bundle that runs without Isocenter, and that Isocenter loads."""
