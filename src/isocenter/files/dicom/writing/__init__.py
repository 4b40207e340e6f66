"""Writing DICOM: image series, segmentations, structured reports."""
