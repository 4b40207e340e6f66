"""Instance segmentation: single objects, each with its own number."""
