"""A stream of frames through a small U-Net, and how long each took: `frames_ours.py FRAMES SIZE`"""

import json
import os
import sys

import numpy as np
import torch

from isocenter.runtime import Model, Preprocessing, torch_networks
from isocenter.runtime.inference import Inference
from isocenter.runtime.torch_networks import Networks, TorchNetwork
from isocenter.tasks import task_catalogue
from isocenter.transforms.intensity import Normalisation

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
frames, size = int(sys.argv[1]), int(sys.argv[2])
labels = [{"value": 1, "name": "structure"}]
task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 1.0})
shape = {"strides": [[1, 1], [2, 2], [2, 2]], "width": 16, "widest": 64}
network = {"name": "unet", "channels": 1, "spatial_dims": 2, "size": shape}
torch.manual_seed(0)
run = TorchNetwork(torch_networks.build_module(task, network).eval())
prepares = Preprocessing(2, ("0",), (Normalisation("range", 0, 255, 0.5, 0.25),))
model = Model(task, prepares, Inference((min(256, size),) * 2, 0.25, 4), Networks(run, network))
rng = np.random.default_rng(0)
stream = model.stream(rng.integers(0, 255, (1, size, size)).astype(np.uint8) for _ in range(frames))
for _ in stream:
    pass
found = stream.latency
figures = {"p50_ms": 1000 * found.p50, "p99_ms": 1000 * found.p99, "longest_ms": 1000 * found.longest}
print(json.dumps({**figures, "frames": found.count}))
