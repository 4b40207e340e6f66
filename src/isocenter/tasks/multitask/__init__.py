"""Several kinds of problem, answered by one network."""
