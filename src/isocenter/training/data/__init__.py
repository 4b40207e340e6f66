"""Training data: cases prepared and stored, sampled, loaded, and targets by kind."""
