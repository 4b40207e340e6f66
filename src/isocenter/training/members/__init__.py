"""Members of an ensemble: those that one training leaves, their outputs, and the weights fitted to these."""
