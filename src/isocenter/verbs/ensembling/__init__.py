"""The parts of `ensemble`: members, their agreement, weights, plan and report."""
