"""DICOM objects: read as images and label maps, written as series, SEG and SR."""
