"""DICOM over the network: receive objects, and ask peers."""
