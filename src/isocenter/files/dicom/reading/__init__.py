"""Reading DICOM: series, frames, pixels, values, segmentations, structure sets, structured reports."""
