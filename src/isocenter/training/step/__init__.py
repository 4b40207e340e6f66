"""One training step: its loss, its arithmetic, the optimiser and the average of weights."""
