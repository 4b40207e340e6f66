"""The gate: whether an image is of the kind that trained the model."""
