"""The work of a node: jobs claimed, models kept warm, answers written."""
