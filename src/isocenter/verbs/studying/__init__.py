"""The folder of a study, and the page of its results."""
