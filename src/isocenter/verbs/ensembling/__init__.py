"""The parts of `ensemble`: members that can be averaged, their weights, and the plan."""
