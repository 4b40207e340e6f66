"""The code of the page `docs/textbook.md`, from top to bottom: a textbook's classifier beside ours."""

# ruff: noqa: E402, T201 - imports stand where a reader meets them; lines show a value

# --8<-- [start:names]
from dataclasses import dataclass
from enum import Enum


class Modality(Enum):
    XRAY = "xray"
    CT = "ct"
    MRI = "mri"
    ULTRASOUND = "ultrasound"
    PATHOLOGY = "histopathology"


class Task(Enum):
    CLASSIFICATION = "classification"
    DETECTION = "detection"
    SEGMENTATION = "segmentation"


class Architecture(Enum):
    RESNET = "resnet"
    UNET = "unet"
    VIT = "vit"


# --8<-- [end:names]


# --8<-- [start:names-2]
from hilum.files import modality_words
from hilum.networks import factory
from hilum.tasks import task_catalogue

words = {member: modality_words.modality_word(member.value) for member in Modality}
print(words)  # DX, CT, MR, US and SM, as DICOM has them
known = {member: task_catalogue.task_class(member.value) for member in Task}
families = {member: factory.family_of(member.value) for member in Architecture}
print(families[Architecture.VIT].paper, len(factory.family_names()), "families; `hilum networks` lists them")
# --8<-- [end:names-2]


# --8<-- [start:a-table-of-patients]
@dataclass
class Sample:
    image_path: str
    label: str
    patient_id: str
    age: float
    sex: str
    bmi: float


# --8<-- [end:a-table-of-patients]


# --8<-- [start:a-table-of-patients-2]
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import hilum

files = sorted(Path("pictures").rglob("*.png"))
drawn = np.random.default_rng(0)
samples = [
    Sample(str(file), file.parent.name, f"P{n // 2}", drawn.normal(60, 10), "FM"[n // 2 % 2], drawn.normal(25, 3))
    for n, file in enumerate(files)
]
patients = hilum.dataset(pd.DataFrame(samples), covariates="age,sex,bmi", augment=True)
print(patients.covariate_names)
patient_loader = torch.utils.data.DataLoader(patients, batch_size=8, collate_fn=patients.collate)
for epoch in range(2):
    patients.set_epoch(epoch)
    for joined in patient_loader:
        joined["image"], joined["covariates"], joined["target"]  # what a loop of your own needs
# --8<-- [end:a-table-of-patients-2]


# --8<-- [start:a-table-of-patients-3]
from hilum.runtime import torch_networks

beside = torch_networks.build_module(patients.settings.task, patients.settings.architecture)
print(patients.plan.decision("network.context_fusion"))
logits = beside(joined["image"], joined["covariates"])["class"]
# --8<-- [end:a-table-of-patients-3]


# --8<-- [start:data]
from PIL import Image


class Pictures(torch.utils.data.Dataset):
    classes = ("bright", "dark")

    def __init__(self, folder):
        self.files = sorted(Path(folder).rglob("*.png"))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        file = self.files[index]
        pixels = np.asarray(Image.open(file).resize((24, 24)), dtype=np.float32)
        pixels = (pixels - pixels.mean()) / pixels.std()
        return torch.from_numpy(pixels)[None], self.classes.index(file.parent.name)


textbook = Pictures("pictures")
# --8<-- [end:data]


# --8<-- [start:data-2]
from hilum.reading import ReadingOptions, dataset_reading

dataset = dataset_reading.open_dataset("pictures", ReadingOptions())
case = next(iter(dataset))
image = case.images["image"]
print(case.id, case.patient, case.references["class"], image.pixels.shape, image.geometry.spacing)
# --8<-- [end:data-2]


# --8<-- [start:choices]
from hilum.planning import plan_checks, plan_file

plan = plan_file.read_plan(Path("run/plan.yaml"))
print(plan.decision("augmentation.rotation"))  # value, reason, source
chosen = plan_checks.checked_settings(plan)
task, preprocessing, augmentation = chosen.task, chosen.preprocessing, chosen.augmentation
print(task.classes, preprocessing.shape, augmentation.rotation, chosen.training.learning_rate)
# --8<-- [end:choices]


# --8<-- [start:batches]
loader = torch.utils.data.DataLoader(textbook, batch_size=8, shuffle=True)
images, targets = next(iter(loader))
# --8<-- [end:batches]


# --8<-- [start:batches-2]
from hilum.training.data import prepared_store
from hilum.training.data.batch_loading import Loader

prepared = prepared_store.prepare_all(list(dataset), preprocessing, task, threads=1, memory=2**30)
ours = Loader(prepared, chosen.training.patch, batch=8, foreground=0.0, seed=0)
batch = ours.of_step(0)  # always the same batch; no worker process holds a generator
# --8<-- [end:batches-2]


# --8<-- [start:model-loss-and-loop]
model = torch.nn.Sequential(
    torch.nn.Conv2d(1, 8, 3, padding=1),
    torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(),
    torch.nn.Linear(8, 2),
)
optimiser = torch.optim.AdamW(model.parameters(), lr=0.01)
for images, targets in loader:
    loss = torch.nn.functional.cross_entropy(model(images), targets)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
# --8<-- [end:model-loss-and-loop]


# --8<-- [start:model-loss-and-loop-2]
network = torch_networks.build_module(task, chosen.architecture)  # {head: outputs}
optimiser = torch.optim.AdamW(network.parameters(), lr=chosen.training.learning_rate)
for step in range(5):
    batch = ours.of_step(step)
    loss = task.loss(network(torch.from_numpy(batch.images)), torch.from_numpy(batch.targets))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
# --8<-- [end:model-loss-and-loop-2]


# --8<-- [start:training-metrics]
@dataclass
class TrainingMetrics:
    epoch: int
    train_loss: float
    val_loss: float
    val_auc: float
    learning_rate: float


history: list[TrainingMetrics] = []  # one at the end of each epoch
# --8<-- [end:training-metrics]


# --8<-- [start:training-metrics-2]
log = pd.read_csv("run/log.csv")
train_cases = int((pd.read_csv("run/split.csv")["split"] == "train").sum())
log["epoch"] = log["step"] * chosen.training.batch / train_cases
scored = log.dropna(subset="validation")
print(scored[["epoch", "loss", "training_metric", "validation"]].to_string(index=False))
# --8<-- [end:training-metrics-2]


# --8<-- [start:metric-and-prediction]
model.eval()
with torch.inference_mode():
    correct = [int(model(pixels[None]).argmax()) == target for pixels, target in textbook]
accuracy = sum(correct) / len(correct)
# --8<-- [end:metric-and-prediction]


# --8<-- [start:metric-and-prediction-2]
trained = hilum.load("run", "cpu")
cases = list(dataset)[::5]
predictions = [trained.predict(one) for one in cases]
table = trained.task.score(predictions, cases)
for row in trained.task.summary(table, seed=0)[:2]:
    print(row.metric, row.label, row.estimate)
# --8<-- [end:metric-and-prediction-2]


# --8<-- [start:attention-maps]
kept = {}
layer = model[1]
layer.register_forward_hook(lambda module, inputs, output: kept.update(maps=output))
pixels, _ = textbook[0]
score = model(pixels[None])[0].max()
[slopes] = torch.autograd.grad(score, kept["maps"])
grad_cam = (slopes.mean(dim=(2, 3), keepdim=True) * kept["maps"]).sum(dim=1).relu()
# --8<-- [end:attention-maps]


# --8<-- [start:attention-maps-2]
why = hilum.explain(trained, str(files[0]), method="gradcam", tests=0)
[explained] = why.maps.values()
print(explained.data.shape, why.table[["target", "method"]])
# --8<-- [end:attention-maps-2]


# --8<-- [start:uncertainty]
doubtful = torch.nn.Sequential(*list(model)[:-1], torch.nn.Dropout(0.5), model[-1])
with torch.inference_mode():
    draws = torch.stack([doubtful(pixels[None]).softmax(dim=1) for _ in range(10)])
mean = draws.mean(dim=0)
entropy = -(mean * mean.log()).sum()
# --8<-- [end:uncertainty]


# --8<-- [start:uncertainty-2]
answered = hilum.predict(trained, str(files[0]), uncertainty="none")
doubt = answered.predictions[files[0].stem].confidence
print(doubt.total)  # nats; doubt.aleatoric and doubt.epistemic are its parts, where several predictions are compared
# --8<-- [end:uncertainty-2]
