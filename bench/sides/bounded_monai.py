"""MONAI's sliding window over a large volume, from file to file: `bounded_monai.py VOLUME OUT ... LIMIT STEPS`

The arguments are those of `bounded_ours.py`, then bytes of address space that it may take, and how many windows its
buffer holds before they are added up (0 for none).
"""

import json
import resource
import sys
import time

import nibabel
import numpy as np
import torch
from bounded_model import Light
from monai.inferers import SlidingWindowInferer

volume, out = sys.argv[1:3]
classes, overlap, size, batch = int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
limit, steps = int(sys.argv[7]), int(sys.argv[8])
# Without it the system would end whichever process it likes when memory runs out.
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
network = Light(classes).eval()
inferer = SlidingWindowInferer(
    (size,) * 3,
    batch,
    overlap,
    mode="gaussian",
    buffer_steps=steps or None,
    buffer_dim=-1,
)
began = time.perf_counter()
image = nibabel.load(volume)
data = np.asarray(image.dataobj, dtype=np.float32)
np.clip(data, -1000, 1000, out=data)
data /= 500
with torch.inference_mode():
    mask = inferer(torch.from_numpy(data)[None, None], network).argmax(dim=1)[0].to(torch.uint8)
nibabel.Nifti1Image(mask.numpy(), image.affine).to_filename(out)
print(json.dumps({"predicting": time.perf_counter() - began}))
