"""Reads a DICOM series by SimpleITK and says how long the calls took: `read_sitk.py FOLDER`"""

import json
import sys
import time

import SimpleITK

began = time.perf_counter()
reader = SimpleITK.ImageSeriesReader()
reader.SetFileNames(reader.GetGDCMSeriesFileNames(sys.argv[1]))
image = reader.Execute()
values = SimpleITK.GetArrayViewFromImage(image)
seconds = time.perf_counter() - began
spacing = [round(mm, 4) for mm in image.GetSpacing()]
figures = {
    "reading": seconds,
    "shape": list(image.GetSize()),
    "sum": float(values.sum(dtype="float64")),
    "spacing": spacing,
}
print(json.dumps(figures))
