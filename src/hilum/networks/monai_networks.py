"""Encoder-decoders of MONAI, with our settings, heads by name, and images of any size.

Cardoso et al., arXiv:2211.02701. A network is a class below, which makes MONAI's and names the parts of its encoder and
of its decoder, and a row of the table at the end. Tensors have MONAI's names after `body.`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import einops  # noqa: F401 - MONAI asks for it only once a transformer is made
import torch
from monai.networks import nets
from monai.networks.blocks import UpSample
from monai.networks.layers.factories import Conv, Pool
from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.basic_unet import Down, TwoConv, UpCat
from monai.networks.nets.vnet import DownTransition, InputTransition, OutputTransition, UpTransition
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.overrides import TorchFunctionMode

from hilum.networks import common_layers, transformer_blocks
from hilum.networks.common_layers import LINEAR
from hilum.networks.network_family import Family, Sized, SizeFor, SizeValue, Strides

# Of UNet++ as in MONAI's class.
LEAKY = ("LeakyReLU", {"negative_slope": 0.1, "inplace": True})
INSTANCE = ("instance", {"affine": True})
# Of the V-Net: convolutions of each stage below the first on the way down and on the way up, as MONAI counts them.
DOWN, UP = (1, 2, 3, 2), (1, 1, 2, 2)
ELU = ("elu", {"inplace": True})
# Of MedNeXt the smallest of its paper, S (table 1). On a processor a quarter of the width.
MEDNEXT_WIDTH = 32
HALVINGS = 4
NARROWER = 4
# Of UNETR: voxels per axis of a token, and layers with skip connections besides the last, both fixed in MONAI's class.
CUBE = 16
TAPPED = (3, 6, 9)
# Its paper's transformer, ViT-B16 (section 3.2), and a narrow one for processors: features of a token, those of its
# inner layer, heads, and maps of the finest decoder.
VIT_B = {"hidden": 768, "inner": 3072, "heads": 12, "width": 16}
NARROW_VIT = {"hidden": 192, "inner": 768, "heads": 6, "width": 8}
# Of Swin UNETR as in its paper (table 1): maps of the first grid, heads of attention on each grid, cells of a window,
# and voxels per axis of a cell of the coarsest grid.
SWIN_WIDTH = 48
HEADS = (3, 6, 12, 24)
WINDOW = 7
SWIN_CELL = 32
# The narrowest that MONAI's class takes. In the paper a head has 16 maps, on a processor 12. With a width of 12 a step
# of a volume of 40 x 56 x 40 took 3.6 s with the paper's heads and windows of 7 cells, 1.3 s with these heads, and with
# windows of 4 besides 0.6 s.
NARROWEST = 12
FEW_HEADS = (1, 2, 4, 8)
SMALL_WINDOW = 4


class MonaiNetwork(nn.Module, ABC):
    """(batch, channels, *spatial) to {head: (batch, channels of the head, *spatial) or (batch, size)}.

    Images of any size are padded, by their last voxels, to whole cells of the coarsest grid, and outputs are cropped.
    dense, vectors: heads by name with their number of channels. Dense heads are channels of one map, in the order
                    given; the others are linear layers on the mean of the coarsest grid
    `size`:         settings, as `make_network` takes them

    multiple: voxels per axis of a cell of the coarsest grid; deepest: feature maps of that grid
    down:     parts of the encoder, one a grid, finest first, each of which takes the maps of the grid before
    up:       parts of the decoder, coarsest first, each of which takes maps and those of the finer grid
    last:     the part that makes the outputs
    """

    multiple: list[int]
    deepest: int
    down: Sequence[str] = ()
    up: Sequence[str] = ()
    last: str = "out"

    def __init__(
        self, channels: int, spatial_dims: int, dense: Mapping[str, int], vectors: Mapping[str, int], **size: Any
    ) -> None:
        super().__init__()
        self.coarsest = nn.Identity()  # where others see its features
        # MONAI makes no network without a map of outputs.
        self.body: Any = self.make_network(channels, spatial_dims, max(1, sum(dense.values())), **size)
        ends = [sum(list(dense.values())[: n + 1]) for n in range(len(dense))]
        parts = zip(dense.items(), ends, strict=True)
        self.dense = nn.ModuleDict({name: ChannelSlice(end - count, count) for (name, count), end in parts})
        self.vectors = nn.ModuleDict({name: nn.Linear(self.deepest, n) for name, n in vectors.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return the outputs by head; `context` is not used."""
        size = common_layers.spatial_sizes(images)
        images = common_layers.pad_to_cells(images, self.multiple)
        features = self.encode(images)
        features[-1] = self.coarsest(features[-1])
        pooled = features[-1].flatten(2).mean(dim=2)
        outputs = {name: layer(pooled) for name, layer in self.vectors.items()}
        for level, maps in enumerate(self.decode(features) if self.dense else []):
            here = common_layers.crop_to_images(maps, size, common_layers.spatial_sizes(images))
            outputs |= {f"{name}@{level}" if level else name: part(here) for name, part in self.dense.items()}
        return outputs

    @abstractmethod
    def make_network(self, *inputs: Any, **size: Any) -> nn.Module:
        """Return MONAI's network, and set where its parts are; ValueError for settings that make none.

        inputs: channels, axes and outputs
        """

    def encode(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""
        features = [images]
        for name in self.down:
            features.append(self.body.get_submodule(name)(features[-1]))
        return features[1:]

    def decode(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid), finest first; coarser ones in training only."""
        maps = features[-1]
        for name, skip in zip(self.up, features[-2::-1], strict=True):
            maps = self.body.get_submodule(name)(maps, skip)
        return [self.body.get_submodule(self.last)(maps)]


class ChannelSlice(nn.Module):
    """`count` channels of a map, from channel `first` on."""

    def __init__(self, first: int, count: int) -> None:
        super().__init__()
        self.first = first
        self.count = count

    def forward(self, maps: Tensor) -> Tensor:
        """Return (batch, count, *spatial)."""
        return maps.narrow(1, self.first, self.count)


class AttentionUNet(MonaiNetwork):
    """Attention U-Net: gates from the coarser grid weigh the skip connections. Oktay et al., MIDL 2018

    strides: one entry a stage and axis; the first stage has stride 1
    width:   feature maps of the first stage; doubled by each
    dropout: of single voxels, in each stage
    """

    def make_network(
        self,
        channels: int,
        axes: int,
        outputs: int,
        strides: Sequence[Sequence[int]],
        width: int = 16,
        dropout: float = 0.0,
    ) -> nn.Module:
        """Return MONAI's class, whose gates hold what lies below them."""
        self.multiple = common_layers.cell_size(strides, axes)
        widths = [width * 2**stage for stage in range(len(strides))]
        self.deepest = widths[-1]
        self.gates = [f"model.1{'.submodule.1' * depth}" for depth in range(len(strides) - 1)]
        self.down = ["model.0", *(f"{gate}.submodule.0" for gate in self.gates[:-1]), f"{self.gates[-1]}.submodule"]
        steps: Any = [tuple(stride) for stride in strides[1:]]
        return AttentionUnet(axes, channels, outputs, widths, steps, dropout=dropout)

    def decode(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid)."""
        maps = features[-1]
        for name, skip in zip(self.gates[::-1], features[-2::-1], strict=True):
            gate = self.body.get_submodule(name)
            wide = gate.upconv(maps)
            maps = gate.merge(torch.cat([gate.attention(g=wide, x=skip), wide], dim=1))
        return [self.body.model[2](maps)]


class UNetPlusPlus(MonaiNetwork):
    """UNet++: node (row, place) has the resolution of its row, and gets all nodes before it and the one below these.

    Zhou et al., DLMIA 2018. MONAI's own class has five grids, each halved along all axes; this one has as many as there
    are strides.
    strides: one entry a stage and axis; the first stage has stride 1
    width:   feature maps of the first row; doubled by each
    dropout: of single voxels, in each node
    """

    def make_network(
        self,
        channels: int,
        axes: int,
        outputs: int,
        strides: Sequence[Sequence[int]],
        width: int = 32,
        dropout: float = 0.0,
    ) -> nn.Module:
        """Return MONAI's blocks under the names of its class."""
        self.multiple = common_layers.cell_size(strides, axes)
        rows = len(strides)
        widths = [width * 2**row for row in range(len(strides))]
        self.deepest = widths[-1]
        self.down = [f"conv_{row}_0" for row in range(rows)]
        self.last = f"final_conv_0_{rows - 1}"
        usual: Any = {"act": LEAKY, "norm": INSTANCE, "bias": True, "dropout": dropout}
        parts: dict[str, nn.Module] = {"conv_0_0": TwoConv(axes, channels, width, **usual)}
        for row in range(1, rows):
            step = tuple(strides[row])
            down = Down(axes, widths[row - 1], widths[row], **usual)
            down.max_pooling = Pool["MAX", axes](kernel_size=step)
            parts[f"conv_{row}_0"] = down
            for column in range(1, rows - row + 1):
                # Nodes of the first row get all maps from below, the others half of them, as in MONAI's class.
                halves = row > 1
                joined = widths[row - 1] * column
                node = UpCat(axes, widths[row], joined, widths[row - 1], halves=halves, **usual)
                node.upsample = UpSample(axes, widths[row], widths[row] // 2 if halves else widths[row], step)
                parts[f"upcat_{row - 1}_{column}"] = node
        return nn.ModuleDict({**parts, self.last: Conv["conv", axes](width, outputs, kernel_size=1)})

    def decode(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid)."""
        nodes = [[maps] for maps in features]
        for column in range(1, len(nodes)):
            for row in range(len(nodes) - column):
                before = torch.cat(nodes[row], dim=1)
                nodes[row].append(self.body[f"upcat_{row}_{column}"](nodes[row + 1][column - 1], before))
        return [self.body[self.last](nodes[0][-1])]


class VNet(MonaiNetwork):
    """V-Net: residual stages of convolutions of 5 voxels an axis, with strided ones in between.

    Milletari et al., 3DV 2016. MONAI's own class has one width and halves four times along all axes; here both follow
    the settings.
    strides: one entry a stage and axis; the first stage has stride 1
    width:   feature maps of the first stage; doubled by each
    dropout: of whole feature maps, from the fourth stage on, and in skip connections
    Images are repeated to the width of the first maps, and added to them: where their channels do not divide the width,
    channels of zeros are added until they do.
    """

    def make_network(
        self,
        channels: int,
        axes: int,
        outputs: int,
        strides: Sequence[Sequence[int]],
        width: int = 16,
        dropout: float = 0.5,
    ) -> nn.Module:
        """Return MONAI's transitions under the names of its class."""
        check_axes(axes, "vnet")
        self.multiple = common_layers.cell_size(strides, axes)
        if channels > width:
            raise ValueError(f"{channels} channels cannot be added to {width} maps (width)")
        divisor = next(n for n in range(channels, width + 1) if width % n == 0)
        self.added = divisor - channels
        widths = [width * 2**stage for stage in range(len(strides))]
        self.deepest = widths[-1]
        self.last = "out_tr"
        self.down = ["in_tr", *(f"down_tr{maps}" for maps in widths[1:])]
        self.up = [f"up_tr{maps}" for maps in widths[:0:-1]]
        # MONAI's class uses the dropout of volumes also for pictures, where torch would drop whole images.
        drops: Any = {"dropout_dim": axes}
        parts: dict[str, nn.Module] = {"in_tr": InputTransition(axes, divisor, width, ELU)}
        for stage, maps in enumerate(widths[1:], start=1):
            often = DOWN[min(stage, len(DOWN)) - 1]
            step = tuple(strides[stage])
            down = DownTransition(axes, widths[stage - 1], often, ELU, dropout if stage > 2 else None, **drops)
            down.down_conv = Conv["conv", axes](widths[stage - 1], maps, step, step, bias=False)
            parts[f"down_tr{maps}"] = down
        before = widths[-1]
        for stage in range(len(widths) - 1, 0, -1):
            maps = widths[stage]
            often = UP[min(stage, len(UP)) - 1]
            step = tuple(strides[stage])
            deep_and_across: Any = (dropout if stage > 2 else None, dropout)
            up = UpTransition(axes, before, maps, often, ELU, deep_and_across, **drops)
            up.up_conv = Conv["convtrans", axes](before, maps // 2, step, step)
            parts[f"up_tr{maps}"] = up
            before = maps
        return nn.ModuleDict({**parts, "out_tr": OutputTransition(axes, before, outputs, ELU)})

    def encode(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""
        if self.added:
            images = torch.cat([images, torch.zeros_like(images[:, :1]).repeat_interleave(self.added, 1)], dim=1)
        return super().encode(images)


class MedNeXt(MonaiNetwork):
    """MedNeXt: ConvNeXt blocks, also for its changes of resolution; all axes are halved equally.

    Roy et al., MICCAI 2023.
    halvings:         number of changes of resolution
    blocks:           of each stage from the finest to the coarsest, one number or one for each of halvings + 1; the
                      decoder has as many
    expansion:        of the maps inside a block, given likewise
    kernel:           voxels of the depthwise convolutions, odd
    deep_supervision: how many coarser outputs there are in training, each at half the resolution of the one before
    """

    def make_network(
        self,
        channels: int,
        axes: int,
        outputs: int,
        halvings: int = HALVINGS,
        width: int = MEDNEXT_WIDTH,
        blocks: int | Sequence[int] = 2,
        expansion: int | Sequence[int] = 2,
        kernel: int = 3,
        deep_supervision: int = 0,
    ) -> nn.Module:
        """Return MONAI's class."""
        check_axes(axes, "mednext")
        if halvings < 1 or kernel % 2 != 1:
            raise ValueError(f"halvings is a whole number from 1 and kernel an odd one, not {halvings} and {kernel}")
        if not 0 <= deep_supervision <= halvings:
            raise ValueError(f"{halvings} halvings have no {deep_supervision} coarser outputs (deep_supervision)")
        *down, deepest = common_layers.numbers_per_stage(blocks, halvings + 1, "blocks")
        *wider, widest = common_layers.numbers_per_stage(expansion, halvings + 1, "expansion")
        network = nets.MedNeXt(
            axes,
            width,
            channels,
            outputs,
            encoder_expansion_ratio=wider,
            decoder_expansion_ratio=wider[::-1],
            bottleneck_expansion_ratio=widest,
            kernel_size=kernel,
            deep_supervision=deep_supervision > 0,
            use_residual_connection=True,
            blocks_down=down,
            blocks_bottleneck=deepest,
            blocks_up=down[::-1],
        )
        for number in range(halvings - deep_supervision if deep_supervision else 0):
            network.out_blocks[number] = nn.Identity()  # of grids that give no output
        self.multiple = [2**halvings] * axes
        self.deepest = width * 2**halvings
        self.coarser = deep_supervision
        return network

    def encode(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""
        images = self.body.stem(images)
        features = []
        for stage, down in zip(self.body.enc_stages, self.body.down_blocks, strict=True):
            features.append(stage(images))
            images = down(features[-1])
        return [*features, self.body.bottleneck(images)]

    def decode(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid), finest first; coarser ones in training only."""
        maps = features[-1]
        coarser = []
        stages = zip(self.body.up_blocks, self.body.dec_stages, features[-2::-1], strict=True)
        for number, (up, stage, skip) in enumerate(stages):
            if self.training and number >= len(self.body.up_blocks) - self.coarser:
                coarser.append(self.body.out_blocks[number](maps))
            maps = stage(up(maps) + skip)
        return [self.body.out_0(maps), *coarser[::-1]]


class Unetr(MonaiNetwork):
    """UNETR: a transformer over patches of 16 voxels an axis, and a convolutional decoder with skip connections.

    Hatamizadeh et al., WACV 2022.
    patch:   voxels per axis of images whose positions are learnt; for images of another size these are interpolated
             (as in Dosovitskiy et al., arXiv:2010.11929, section 3.2)
    hidden:  features of a token, a multiple of heads; inner: of the layer between two
    heads:   of attention
    width:   maps of the finest decoder; doubled by each coarser one
    dropout: in the transformer
    """

    up = ("decoder5", "decoder4", "decoder3", "decoder2")

    def make_network(
        self,
        channels: int,
        axes: int,
        outputs: int,
        patch: Sequence[int],
        hidden: int = VIT_B["hidden"],
        inner: int = VIT_B["inner"],
        heads: int = VIT_B["heads"],
        width: int = VIT_B["width"],
        dropout: float = 0.0,
    ) -> nn.Module:
        """Return MONAI's class."""
        if len(patch) != axes or min(patch) < 1:
            raise ValueError(f"patch needs {axes} sizes, not {patch}")
        self.multiple = [CUBE] * axes
        self.deepest = hidden
        self.grid = [-(-n // CUBE) for n in patch]
        size = [n * CUBE for n in self.grid]
        network = nets.UNETR(
            channels, outputs, size, width, hidden, inner, heads, dropout_rate=dropout, spatial_dims=axes
        )
        for block in network.vit.blocks:
            block.norm_cross_attn = nn.Identity()  # of an attention that it does not have
        return network

    def places(self, grid: Sequence[int]) -> Tensor:
        """(1, tokens, hidden): embeddings of the positions on an image's grid."""
        learnt: Tensor = self.body.vit.patch_embedding.position_embeddings
        if list(grid) == self.grid:
            return learnt
        lattice = learnt.transpose(1, 2).unflatten(2, self.grid)
        between = interpolate(lattice, size=list(grid), mode=LINEAR[len(self.grid)], align_corners=False)
        return between.flatten(2).transpose(1, 2)

    def encode(self, images: Tensor) -> list[Tensor]:
        """The images, and (batch, hidden, *grid) of the tokens after four of the layers."""
        transformer = self.body.vit
        cubes = transformer.patch_embedding.patch_embeddings(images)
        grid = common_layers.spatial_sizes(cubes)
        tokens = transformer.patch_embedding.dropout(cubes.flatten(2).transpose(1, 2) + self.places(grid))
        layers = []
        for number, block in enumerate(transformer.blocks):
            tokens = block(tokens)
            layers += [tokens] if number in TAPPED else []
        return [images, *(maps.transpose(1, 2).unflatten(2, grid) for maps in (*layers, transformer.norm(tokens)))]

    def decode(self, features: list[Tensor]) -> list[Tensor]:
        """(batch, outputs, *grid)."""
        *finer, last = features
        network = self.body
        encoders = (network.encoder1, network.encoder2, network.encoder3, network.encoder4)
        return super().decode([*(encoder(maps) for encoder, maps in zip(encoders, finer, strict=True)), last])

    def spread_rollout(self, flow: Tensor, images: Tensor) -> Tensor:
        """(batch, 1, *spatial) of a rollout: each cube's share in the mean of the tokens, for vector heads."""
        return transformer_blocks.spread_of_mean(flow, images, self.multiple)


class SwinUnetr(MonaiNetwork):
    """Swin UNETR: a Swin transformer on four grids, and a convolutional decoder; all axes are halved five times.

    Hatamizadeh et al., BrainLes 2021; windows as in Liu et al., ICCV 2021, arXiv:2103.14030.
    width:   feature maps of the first grid, a multiple of 12; doubled by each
    depths:  layers of attention on each of four grids
    heads:   of attention on each of them
    window:  cells per axis of a window of attention
    dropout: in the transformer
    """

    up = ("decoder5", "decoder4", "decoder3", "decoder2", "decoder1")

    def make_network(
        self,
        channels: int,
        axes: int,
        outputs: int,
        width: int = SWIN_WIDTH,
        depths: Sequence[int] = (2, 2, 2, 2),
        heads: Sequence[int] = HEADS,
        window: int = WINDOW,
        dropout: float = 0.0,
    ) -> nn.Module:
        """Return MONAI's class."""
        check_axes(axes, "swin_unetr")
        if len(depths) != 4 or len(heads) != 4:
            raise ValueError(f"depths and heads need one number for each of four grids, not {depths} and {heads}")
        self.multiple = [SWIN_CELL] * axes
        self.deepest = 16 * width
        with Rates():
            return nets.SwinUNETR(
                channels,
                outputs,
                depths=tuple(depths),
                num_heads=tuple(heads),
                window_size=window,
                feature_size=width,
                drop_rate=dropout,
                spatial_dims=axes,
            )

    def encode(self, images: Tensor) -> list[Tensor]:
        """(batch, maps, *grid) of each grid, finest first."""
        network = self.body
        *finer, fourth, deepest = network.swinViT(images, network.normalize)
        encoders = (network.encoder1, network.encoder2, network.encoder3, network.encoder4)
        skips = zip(encoders, (images, *finer), strict=True)
        return [*(encoder(skip) for encoder, skip in skips), fourth, network.encoder10(deepest)]


class Rates(TorchFunctionMode):
    """MONAI's class reads the rates of stochastic depth from a tensor: it stays on the CPU, also on the meta device."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), options: Any = None) -> Any:
        where = {"device": "cpu"} if function is torch.linspace else {}
        return function(*args, **(options or {}), **where)


def check_axes(axes: int, name: str) -> None:
    """ValueError where MONAI's network has no version for so many axes."""
    if axes not in (2, 3):
        raise ValueError(f"{name} is for images of 2 or 3 axes, not {axes}: choose unet")


def size_by_stages(
    patch: Sequence[int], strides: Strides, device: str, *, width: int, narrower: int, paper: str
) -> Sized:
    """Five stages as in the papers, or as many as the patch has; on a processor a part of the width."""
    stages = common_layers.first_stages(strides, 5)
    size: dict[str, SizeValue] = {"strides": stages, "width": width // narrower if device == "cpu" else width}
    return size, f"patch {tuple(patch)}: {len(stages)} stages; width for the {device}", paper


def halvings_for(patch: Sequence[int], most: int) -> int:
    """The number of times that all axes can be halved until the shortest has two cells; at least 1."""
    return max(1, min(most, (min(patch) // 2).bit_length() - 1))


def mednext_size(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The paper's smallest network, halved as often as the patch allows; a quarter of its width on a processor."""
    del strides  # all axes are halved equally
    slow = device == "cpu"
    often = halvings_for(patch, HALVINGS)
    size: dict[str, SizeValue] = {
        "halvings": often,
        "width": MEDNEXT_WIDTH // NARROWER if slow else MEDNEXT_WIDTH,
        "deep_supervision": 0 if slow else often - 1,
    }
    because = f"patch {tuple(patch)}: halved {often} times along all axes; width for the {device}"
    return size, because, "arXiv:2303.09975"


def unetr_size(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The paper's widths on a GPU, narrow ones on a processor; positions for this patch."""
    del strides  # its patches have the same length along each axis
    size: dict[str, SizeValue] = {"patch": [int(n) for n in patch], **(NARROW_VIT if device == "cpu" else VIT_B)}
    because = f"patch {tuple(patch)} in cubes of {CUBE} voxels an axis; width for the {device}"
    return size, because, "arXiv:2103.10504"


def swin_size(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    """The paper's settings on a GPU; on a processor a quarter of the width, fewer heads, smaller windows in volumes."""
    del strides  # all axes are halved equally
    padded_size = tuple(-(-n // SWIN_CELL) * SWIN_CELL for n in patch)
    padded = "" if padded_size == tuple(patch) else f", padded to {padded_size}"
    size: dict[str, SizeValue] = {"width": SWIN_WIDTH}
    if device == "cpu":
        size = {"width": NARROWEST, "heads": list(FEW_HEADS)}
        size |= {"window": SMALL_WINDOW} if len(patch) == 3 else {}
    settings = "width" if device != "cpu" else "width, heads and windows"
    because = f"patch {tuple(patch)}{padded}: halved five times; {settings} for the {device}"
    return size, because, "arXiv:2201.01266"


def monai_family(
    build: Callable[..., MonaiNetwork], paper: str, size_for: SizeFor | None = None, **more: Any
) -> Family:
    """The family of a network above; `size_for` is that of stages, unless it is given with width and narrower."""
    if size_for is None:
        size_for = partial(size_by_stages, width=more.pop("width"), narrower=more.pop("narrower"), paper=paper)
    return Family(build=build, size_for=size_for, paper=paper, features="coarsest", **more)


ATTENTION_UNET = monai_family(AttentionUNet, "arXiv:1804.03999", width=16, narrower=2)
# On a processor a quarter, because all nodes of the first row have the resolution of the image.
UNET_PLUS_PLUS = monai_family(UNetPlusPlus, "arXiv:1807.10165", width=32, narrower=4)
VNET = monai_family(VNet, "arXiv:1606.04797", width=16, narrower=4)
MEDNEXT_BLOCKS = ("MedNeXtBlock", "MedNeXtDownBlock", "MedNeXtUpBlock")
MEDNEXT = monai_family(MedNeXt, "arXiv:2303.09975", mednext_size, blocks=MEDNEXT_BLOCKS)
UNETR = monai_family(
    Unetr,
    "arXiv:2103.10504",
    unetr_size,
    # PneumoniaMNIST, three minutes on one core, one seed.
    rate={"vector": (0.25, "reached an AUROC of 0.967 with it, and 0.951 with the usual one")},
    attention="body.vit",
)
SWIN_UNETR = monai_family(SwinUnetr, "arXiv:2201.01266", swin_size, attention="body.swinViT")
