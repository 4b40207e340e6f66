"""Registration of the frames of a series."""
