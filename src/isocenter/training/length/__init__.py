"""The length of a training: steps from minutes, measured by a probe, and the schedule that follows them."""
