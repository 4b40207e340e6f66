"""The Open Inference Protocol v2: a model's whole answer for one image, without DICOM."""
