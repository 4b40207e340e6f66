"""Ports of a node whose file names no others."""

DICOM = 11112
HTTP = 8180
VIEWER = 8181
