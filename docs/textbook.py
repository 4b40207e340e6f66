"""The code of the page `docs/textbook.md`, from top to bottom: a textbook's listing beside ours."""

# ruff: noqa: E402, T201 - imports stand where a reader meets them; lines show a value

# --8<-- [start:names]
from dataclasses import dataclass
from enum import Enum


class ImagingModality(Enum):
    XRAY = "xray"
    CT = "ct"
    MRI = "mri"
    ULTRASOUND = "ultrasound"
    PET = "pet"
    MAMMOGRAPHY = "mammography"
    FUNDUS = "fundus"
    OCT = "oct"
    HISTOPATHOLOGY = "histopathology"
    DERMOSCOPY = "dermoscopy"
    ENDOSCOPY = "endoscopy"


class TaskType(Enum):
    CLASSIFICATION = "classification"
    SEGMENTATION = "segmentation"
    DETECTION = "detection"
    REGRESSION = "regression"
    REGISTRATION = "registration"
    RECONSTRUCTION = "reconstruction"
    SYNTHESIS = "synthesis"
    MULTI_TASK = "multi_task"  # multitask, or kinds that are joined, as in segmentation+classification
    UNCERTAINTY_ESTIMATION = "uncertainty_estimation"  # no kind: each states its uncertainty, by --uncertainty


class ModelArchitecture(Enum):
    RESNET = "resnet"
    DENSENET = "densenet"
    EFFICIENTNET = "efficientnet"
    UNET = "unet"
    CNN_3D = "cnn_3d"  # resnet, for masks unet: in 3D where the images are volumes
    VISION_TRANSFORMER = "vision_transformer"  # vit
    SWIN_TRANSFORMER = "swin_transformer"  # timm with a Swin model in network.size; swin_unetr for masks and volumes
    HYBRID = "hybrid_cnn_transformer"  # coatnet; transunet for masks
    FOUNDATION_MODEL = "foundation_model"  # timm with --pretrained auto, or --from FILE: `hilum networks weights`


# --8<-- [end:names]


# --8<-- [start:names-2]
from hilum.errors import HilumError
from hilum.files import modality_words
from hilum.networks import factory
from hilum.tasks import task_catalogue


def answer(question, value):
    """What stands behind a word, or the sentence that says what to ask for."""
    try:
        return question(value)
    except HilumError as error:
        return error.remedy


modalities = {member: answer(modality_words.asked_modality, member.value) for member in ImagingModality}
kinds = {member: answer(task_catalogue.task_class, member.value) for member in TaskType}
families = {member: answer(factory.family_of, member.value) for member in ModelArchitecture}
print(modalities[ImagingModality.MRI], kinds[TaskType.SEGMENTATION].needs, families[ModelArchitecture.RESNET].paper)
print(families[ModelArchitecture.VISION_TRANSFORMER])  # Use vit
# --8<-- [end:names-2]


# --8<-- [start:a-table-of-patients]
from pathlib import Path

import numpy as np
import pandas as pd

files = sorted(Path("pictures").rglob("*.png"))
rng = np.random.default_rng(0)
df = pd.DataFrame({"image_path": map(str, files), "label": [file.parent.name for file in files]})
df["patient_id"] = [f"P{number // 2}" for number in range(len(df))]  # two pictures of each
df["age"] = rng.normal(60, 10, len(df))
df["sex"] = ["FM"[number // 2 % 2] for number in range(len(df))]
# --8<-- [end:a-table-of-patients]


# --8<-- [start:configuration]
@dataclass
class ImagingConfig:
    modality: ImagingModality = ImagingModality.XRAY
    task: TaskType = TaskType.CLASSIFICATION
    architecture: ModelArchitecture = ModelArchitecture.VISION_TRANSFORMER
    image_size: tuple[int, int] = (24, 24)  # preprocessing.shape, or training.patch of what is cut
    num_channels: int = 1  # preprocessing.channels
    num_classes: int = 2  # task.classes, from the training cases
    patch_size: int = 8  # token in network.size
    embed_dim: int = 16  # width in network.size
    depth: int = 2  # layers in network.size
    num_heads: int = 2  # heads in network.size
    drop_path: float = 0.1  # stochastic_depth in network.size
    batch_size: int = 8  # training.batch
    learning_rate: float = 1e-3  # training.learning_rate
    num_epochs: int = 1  # training.minutes, which a probe turns into training.steps


config = ImagingConfig()
# --8<-- [end:configuration]


# --8<-- [start:configuration-2]
import hilum

by_hand = {
    "network.name": "vit",
    "network.size": {"token": 8, "width": 16, "layers": 2, "heads": 2, "stochastic_depth": 0.1, "bayesian": True},
    "inference.uncertainty": "variational",
    "training.steps": 2,  # for this page; without it the minutes decide
}
planned = hilum.plan(df, modality="xray", covariates="age,sex", assignments=by_hand)
print(planned.plan.decision("network.size"))  # set by hand
print(planned.plan.decision("preprocessing.shape"), planned.plan.decision("augmentation.flips"))  # value and reason
# --8<-- [end:configuration-2]


# --8<-- [start:dataset]
import torch
from PIL import Image


class MedicalImagingDataset(torch.utils.data.Dataset):
    classes = ("bright", "dark")

    def __init__(self, df, config, transform=None):
        self.df, self.config, self.transform = df, config, transform

    def __len__(self):
        return len(self.df)

    def __getitem__(self, index):
        row = self.df.iloc[index]
        pixels = np.asarray(Image.open(row["image_path"]).resize(self.config.image_size), dtype=np.float32)
        image = torch.from_numpy((pixels - pixels.mean()) / pixels.std())[None]
        if self.transform is not None:
            image = self.transform(image)
        return image, self.classes.index(row["label"])


# --8<-- [end:dataset]


# --8<-- [start:dataset-2]
def with_noise(item):
    return {**item, "image": item["image"] + 0.01 * torch.randn_like(item["image"])}


ours = hilum.dataset(df, modality="xray", covariates="age,sex", assignments=by_hand, augment=True, transform=with_noise)
item = ours[0]
print(item["case"], item["patient"], item["image"].shape, item["target"], ours.covariate_names)
# --8<-- [end:dataset-2]


# --8<-- [start:dataset-3]
from hilum.reading import ReadingOptions, dataset_reading

case = next(iter(dataset_reading.open_dataset("pictures", ReadingOptions())))
image = case.images["image"]
print(case.id, case.references["class"], image.modality, image.geometry.affine, image.geometry.spacing)
# --8<-- [end:dataset-3]


# --8<-- [start:prepare-data]
def mirror(image):
    return image.flip(-1) if torch.rand(()) < 0.5 else image


def prepare_data(df, config):
    shuffled = df.sample(frac=1, random_state=0)
    end = int(0.8 * len(df))
    train_df, test_df = shuffled[:end], shuffled[end:]
    training = MedicalImagingDataset(train_df, config, mirror)
    return torch.utils.data.DataLoader(training, config.batch_size, shuffle=True), train_df, test_df


loader, train_df, test_df = prepare_data(df, config)
in_both = set(train_df["patient_id"]) & set(test_df["patient_id"])
print(len(in_both), "patients are in both parts")
# --8<-- [end:prepare-data]


# --8<-- [start:prepare-data-2]
patient_of = {case.id: case.patient for case in planned.examination.dataset}
patients = {part: set() for part in planned.parts.values()}
for name, part in planned.parts.items():
    patients[part].add(patient_of[name])
print({part: len(people) for part, people in patients.items()}, patients["train"] & patients["test"])

our_loader = torch.utils.data.DataLoader(ours, batch_size=8, collate_fn=ours.collate)
# --8<-- [end:prepare-data-2]


# --8<-- [start:vision-transformer]
from torch import nn


class MultiHeadAttention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens):
        batch, count, width = tokens.shape
        parts = self.qkv(tokens).reshape(batch, count, 3, self.heads, width // self.heads)
        queries, keys, values = parts.permute(2, 0, 3, 1, 4)
        weights = (queries @ keys.transpose(-2, -1) / (width // self.heads) ** 0.5).softmax(dim=-1)
        self.weights = weights.detach()  # kept for get_attention_maps
        return self.projection((weights @ values).transpose(1, 2).reshape(batch, count, width))


class MLP(nn.Sequential):
    def __init__(self, width, hidden):
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class DropPath(nn.Module):
    def __init__(self, share):
        super().__init__()
        self.share = share

    def forward(self, change):
        if not self.training:
            return change
        kept = torch.rand(len(change), 1, 1) >= self.share
        return change * kept / (1 - self.share)


class TransformerBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        width = config.embed_dim
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.attention = MultiHeadAttention(width, config.num_heads)
        self.mlp = MLP(width, 4 * width)
        self.drop_path = DropPath(config.drop_path)

    def forward(self, tokens):
        tokens = tokens + self.drop_path(self.attention(self.norms[0](tokens)))
        return tokens + self.drop_path(self.mlp(self.norms[1](tokens)))


# --8<-- [end:vision-transformer]


# --8<-- [start:vision-transformer-2]
from hilum.networks import transformer_blocks

their_block = TransformerBlock(config)
our_block = transformer_blocks.TransformerBlock(width=16, heads=2, expansion=4, dropout=0.0, skipped=0.1)
our_block.attention.load_state_dict(their_block.attention.state_dict())
tokens = torch.randn(1, 10, 16)
same = torch.allclose(our_block.attention(tokens), their_block.attention(tokens), atol=1e-6)
print(same, our_block.attention.weights(tokens).sum(dim=-1).unique())
# --8<-- [end:vision-transformer-2]


# --8<-- [start:bayesian-linear]
class BayesianLinear(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.mean = nn.Parameter(0.1 * torch.randn(outside, inside))
        self.log_deviation = nn.Parameter(torch.full((outside, inside), -3.0))
        self.bias = nn.Parameter(torch.zeros(outside))

    def forward(self, features):
        weight = self.mean + self.log_deviation.exp() * torch.randn_like(self.mean)
        return nn.functional.linear(features, weight, self.bias)

    def divergence(self):
        deviation = self.log_deviation.exp()
        return (deviation**2 + self.mean**2 - 1 - 2 * self.log_deviation).sum() / 2


# --8<-- [end:bayesian-linear]


# --8<-- [start:medical-vit]
class MedicalViT(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, patch = config.embed_dim, config.patch_size
        count = (config.image_size[0] // patch) * (config.image_size[1] // patch)
        self.patches = nn.Conv2d(config.num_channels, width, patch, patch)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, 1 + count, width))
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.depth))
        self.head = BayesianLinear(width, config.num_classes)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), tokens], dim=1) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens[:, 0])

    def get_attention_maps(self, images):
        self(images)
        itself = torch.eye(self.positions.shape[1])
        flow = itself
        for block in self.blocks:  # attention rollout
            flow = (block.attention.weights.mean(dim=1) + itself) / 2 @ flow
        side = int((flow.shape[-1] - 1) ** 0.5)
        return flow[:, 0, 1:].reshape(-1, side, side)


# --8<-- [end:medical-vit]


# --8<-- [start:medical-vit-2]
from hilum.runtime import torch_networks

task = ours.settings.task
network = torch_networks.build_module(task, ours.settings.architecture)  # what the plan says: vit, of that size
print(network.vectors["class"].divergence())  # the last layer's weights are distributions
# --8<-- [end:medical-vit-2]


# --8<-- [start:medical-3d-cnn]
class Medical3DCNN(nn.Sequential):
    def __init__(self, channels, classes):
        super().__init__(
            nn.Conv3d(channels, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(8, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(), nn.AdaptiveAvgPool3d(1),
            nn.Flatten(), nn.Linear(16, classes),
        )  # fmt: skip


# --8<-- [end:medical-3d-cnn]


# --8<-- [start:medical-3d-cnn-2]
from hilum.values import Dense, Vector

volume = torch.zeros(1, 1, 16, 16, 16)
size = {"width": 8, "blocks": [1, 1]}
resnet = factory.build("resnet", channels=1, spatial_dims=3, heads={"class": Vector(2)}, size=size)
unet = factory.build("unet", 1, 3, {"mask": Dense(2)}, {"width": 4, "strides": [[1, 1, 1], [2, 2, 2]]})
print(Medical3DCNN(1, 2)(volume).shape, resnet(volume)["class"].shape, unet(volume)["mask"].shape)
# --8<-- [end:medical-3d-cnn-2]


# --8<-- [start:trainer]
@dataclass
class TrainingMetrics:
    epoch: int
    train_loss: float
    learning_rate: float


class ImagingTrainer:
    def __init__(self, model, config):
        self.model, self.config, self.history = model, config, []
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, config.num_epochs)

    def fit(self, loader):
        for epoch in range(self.config.num_epochs):
            losses = []
            for images, targets in loader:
                loss = nn.functional.cross_entropy(self.model(images), targets)
                loss = loss + self.model.head.divergence() / len(loader.dataset)
                self.optimizer.zero_grad()
                loss.backward()
                self.optimizer.step()
                losses.append(loss.item())
            rate = self.scheduler.get_last_lr()[0]
            self.history.append(TrainingMetrics(epoch, sum(losses) / len(losses), rate))
            self.scheduler.step()


# --8<-- [end:trainer]


# --8<-- [start:trainer-2]
optimiser = torch.optim.AdamW(network.parameters(), lr=ours.settings.training.learning_rate)
for epoch in range(1):
    ours.set_epoch(epoch)
    for batch in our_loader:
        outputs = network(batch["image"], batch["covariates"])  # {head: outputs}
        loss = task.loss(outputs, batch["target"]) + network.vectors["class"].divergence() / len(ours)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
# --8<-- [end:trainer-2]


# --8<-- [start:run-training]
def run_training(df, config):
    loader, _, test_df = prepare_data(df, config)
    model = MedicalViT(config)
    trainer = ImagingTrainer(model, config)
    trainer.fit(loader)
    return model, trainer.history, test_df


model, history, test_df = run_training(df, config)
# --8<-- [end:run-training]


# --8<-- [start:run-training-2]
machine = {"device": "cpu", "threads": 1}  # for this page; without it the best that is here
run = hilum.train(df, modality="xray", covariates="age,sex", assignments=by_hand, out="run", **machine)
print(run)  # the test's AUROC with its interval, and what a reader has to know first
log = pd.read_csv("run/log.csv")
print(log[["step", "loss", "learning_rate", "validation"]].to_string(index=False))
# --8<-- [end:run-training-2]


# --8<-- [start:evaluate-model]
def evaluate_model(model, test_df, config):
    model.eval()
    pairs = MedicalImagingDataset(test_df, config)
    with torch.inference_mode():
        correct = [int(model(image[None]).argmax()) == target for image, target in pairs]
    return {"accuracy": sum(correct) / len(correct)}


print(evaluate_model(model, test_df, config))
# --8<-- [end:evaluate-model]


# --8<-- [start:evaluate-model-2]
evaluation = hilum.evaluate("run", df, **machine)
print(evaluation.which)  # of its own patients those of the test part, whatever rows the frame has
for row in evaluation.rows[:2]:
    print(row.metric, row.label, row.estimate)
print(evaluation.scored.table[["case", "patient", "reference", "predicted", "probability_dark"]].head())
# --8<-- [end:evaluate-model-2]


# --8<-- [start:get-attention-maps]
pixels, _ = MedicalImagingDataset(test_df, config)[0]
print(model.get_attention_maps(pixels[None]).shape)  # a number a patch
# --8<-- [end:get-attention-maps]


# --8<-- [start:get-attention-maps-2]
explanation = hilum.explain("run", df[:1], method="attention", tests=0, **machine)
[attention] = explanation.maps.values()
print(attention.data.shape, attention.target)  # a number a pixel of the file
# --8<-- [end:get-attention-maps-2]


# --8<-- [start:uncertainty]
with torch.inference_mode():
    draws = torch.stack([model(pixels[None]).softmax(dim=1) for _ in range(10)])  # other weights each time
mean = draws.mean(dim=0)
total = -(mean * mean.log()).sum()
aleatoric = -(draws * draws.log()).sum(dim=-1).mean()
print(total, total - aleatoric)
# --8<-- [end:uncertainty]


# --8<-- [start:uncertainty-2]
answered = hilum.predict("run", df[:1], uncertainty="variational", **machine)
[prediction] = answered.predictions.values()
doubt = prediction.confidence
print(doubt.total, doubt.aleatoric, doubt.epistemic)  # nats; the total is the sum of the others
# --8<-- [end:uncertainty-2]


# --8<-- [start:save-model]
def save_model(model, config, path):
    torch.save({"config": config, "state": model.state_dict()}, path)


save_model(model, config, "model.pt")
# --8<-- [end:save-model]


# --8<-- [start:save-model-2]
trained = hilum.load("run", "cpu")  # what `train` wrote: nothing else has to be saved
print(sorted(path.name for path in Path("run/checkpoints/best").iterdir()))
print(trained.preprocessing.shape, trained.task.classes)
# --8<-- [end:save-model-2]
