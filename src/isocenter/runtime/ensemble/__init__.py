"""Models of several trainings as one: on one scale of intensities, with weights on the device in turn."""
