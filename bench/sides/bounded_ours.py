"""Hilum over a large volume, from file to file: `bounded_ours.py VOLUME OUT CLASSES OVERLAP PATCH BATCH`"""

import json
import sys
import time

import numpy as np
import torch
from bounded_model import Light

import hilum
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation

volume, out = sys.argv[1:3]
classes, overlap, size, batch = int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
labels = [{"value": n, "name": f"structure {n}"} for n in range(1, classes + 1)]
task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 1.0})
prepares = Preprocessing(3, ("0",), (Normalisation("window", -1000, 1000, 0, 500),))
network = Light(classes).eval()


def run(images: np.ndarray) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        return {"mask": network(torch.from_numpy(images)).numpy()}


model = Model(task, prepares, Inference((size,) * 3, overlap, batch), Networks(run, {"name": "light", "channels": 1}))
began = time.perf_counter()
hilum.predict(model, volume, out=out, device="cpu")
print(json.dumps({"predicting": time.perf_counter() - began}))
