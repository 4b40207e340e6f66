"""Reads a DICOM series by Hilum and says how long the call took: `read_ours.py FOLDER`"""

import json
import sys
import time

import hilum

began = time.perf_counter()
image = hilum.read(sys.argv[1])
values = image.data
seconds = time.perf_counter() - began
spacing = [round(mm, 4) for mm in image.spacing or ()]
figures = {
    "reading": seconds,
    "shape": list(values.shape[1:]),
    "sum": float(values.sum(dtype="float64")),
    "spacing": spacing,
}
print(json.dumps(figures))
