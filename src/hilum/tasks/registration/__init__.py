"""Registration: where each point of a fixed image lies in a moving one, learnt from pairs of images."""
