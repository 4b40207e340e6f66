"""Families of networks with one factory. A new family is one file in this folder and its line in `FAMILIES`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.networks import (
        bag_pooling,
        dropout,
        factory,
        layouts,
        member_catalogue,
        network_family,
        network_parts,
        quick_convolutions,
        text_networks,
        transformer_blocks,
        vit,
        weight_loading,
    )
    from hilum.networks.network_family import Family

# {file of this folder: the families in it}, each a `Family` under its name in capitals.
FAMILIES: dict[str, str] = {
    "alexnet": "alexnet",
    "axial": "axial",
    "backbone": "timm",
    "capsules": "capsules",
    "clips": "clip_gru clip_lstm clip_resnet clip_transformer",
    "coatnet": "coatnet",
    "convnext": "convnext",
    "deeplab": "deeplab",
    "densenet": "densenet",
    "diffusion_unet": "diffusion_unet",
    "efficientnet": "efficientnet",
    "faster_rcnn": "faster_rcnn",
    "fcos": "fcos",
    "fusion": "fusion fusion_attention fusion_late",
    "inception": "inception",
    "inflated_resnet": "inflated_resnet",
    "lenet": "lenet",
    "mask_rcnn": "mask_rcnn",
    "mil": "mil_attention mil_top",
    "mobilenet": "mobilenet",
    "monai_networks": "attention_unet mednext swin_unetr unet_plus_plus unetr vnet",
    "multiscale_unet": "multiscale_unet",
    "nnunet": "plain_conv_unet residual_encoder_unet",
    "pyramid": "pyramid",
    "resnet": "cbam_resnet pseudo3d_resnet resnet resnext se_resnet",
    "resnet_slices": "resnet_slices",
    "retinanet": "retinanet",
    "sam": "sam",
    "segresnet": "segresnet",
    "slide_windows": "slide_windows",
    "transunet": "transunet",
    "unet": "cbam_unet grouped_unet se_unet separable_unet unet voxelmorph",
    "unet_slices": "unet_slices",
    "unrolled": "unrolled",
    "vgg": "vgg",
    "vit": "vit",
    "yolox": "yolox",
}
# {name: the `Family`}; its file is imported on first use.
_PLACES = {name: f"hilum.networks.{file}:{name.upper()}" for file, names in FAMILIES.items() for name in names.split()}
NETWORKS = dict(sorted(_PLACES.items()))
# {name that others have for a network: how one asks for it here}, where it is unlike the name here.
ELSEWHERE = {
    "cnn": "resnet, or unet for masks",
    "cnn_2d": "resnet, or unet for masks: both are in 2D where the images are pictures",
    "cnn_3d": "resnet, or unet for masks: both are in 3D where the images are volumes",
    "cnn_rnn": "clip_lstm or clip_gru, for clips",
    "diffusion": "diffusion_unet with --task synthesis",
    "foundation_model": "timm with --pretrained auto for pictures, or any family with --from FILE: "
    "`hilum networks weights` lists the published weights that are known",
    "hybrid": "coatnet, or transunet for masks",
    "hybrid_cnn_transformer": "coatnet, or transunet for masks",
    "multi_modal": "fusion, with an encoder for each channel",
    "swin_transformer": "timm with network.size={model: swin_tiny_patch4_window7_224} for pictures, "
    "or swin_unetr for masks and volumes",
    "transformer": "vit, or unetr for masks",
    "unet++": "unet_plus_plus",
    "vision_transformer": "vit",
}

lazy_index(__name__)
