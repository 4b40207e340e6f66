"""The uncertainty of a model's answers, and the part of it in which several views of an image disagree."""
