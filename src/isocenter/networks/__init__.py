"""Families of networks with one factory. A new family is one file in this folder and its line in `NETWORKS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.networks import (
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
    from isocenter.networks.network_family import Family

# {name: the `Family` of a file of this folder}; the file is imported on first use.
NETWORKS = {
    "alexnet": "isocenter.networks.alexnet:ALEXNET",
    "attention_unet": "isocenter.networks.monai_networks:ATTENTION_UNET",
    "axial": "isocenter.networks.axial:AXIAL",
    "capsules": "isocenter.networks.capsules:CAPSULES",
    "cbam_resnet": "isocenter.networks.resnet:CBAM_RESNET",
    "cbam_unet": "isocenter.networks.unet:CBAM_UNET",
    "clip_gru": "isocenter.networks.clips:CLIP_GRU",
    "clip_lstm": "isocenter.networks.clips:CLIP_LSTM",
    "clip_resnet": "isocenter.networks.clips:CLIP_RESNET",
    "clip_transformer": "isocenter.networks.clips:CLIP_TRANSFORMER",
    "coatnet": "isocenter.networks.coatnet:COATNET",
    "convnext": "isocenter.networks.convnext:CONVNEXT",
    "deeplab": "isocenter.networks.deeplab:DEEPLAB",
    "densenet": "isocenter.networks.densenet:DENSENET",
    "diffusion_unet": "isocenter.networks.diffusion_unet:DIFFUSION_UNET",
    "efficientnet": "isocenter.networks.efficientnet:EFFICIENTNET",
    "faster_rcnn": "isocenter.networks.faster_rcnn:FASTER_RCNN",
    "fcos": "isocenter.networks.fcos:FCOS",
    "fusion": "isocenter.networks.fusion:FUSION",
    "fusion_attention": "isocenter.networks.fusion:FUSION_ATTENTION",
    "fusion_late": "isocenter.networks.fusion:FUSION_LATE",
    "grouped_unet": "isocenter.networks.unet:GROUPED_UNET",
    "inception": "isocenter.networks.inception:INCEPTION",
    "inflated_resnet": "isocenter.networks.inflated_resnet:INFLATED_RESNET",
    "lenet": "isocenter.networks.lenet:LENET",
    "mask_rcnn": "isocenter.networks.mask_rcnn:MASK_RCNN",
    "mednext": "isocenter.networks.monai_networks:MEDNEXT",
    "mil_attention": "isocenter.networks.mil:MIL_ATTENTION",
    "mil_top": "isocenter.networks.mil:MIL_TOP",
    "mobilenet": "isocenter.networks.mobilenet:MOBILENET",
    "multiscale_unet": "isocenter.networks.multiscale_unet:MULTISCALE_UNET",
    "plain_conv_unet": "isocenter.networks.nnunet:PLAIN_CONV_UNET",
    "pseudo3d_resnet": "isocenter.networks.resnet:PSEUDO3D_RESNET",
    "pyramid": "isocenter.networks.pyramid:PYRAMID",
    "residual_encoder_unet": "isocenter.networks.nnunet:RESIDUAL_ENCODER_UNET",
    "resnet": "isocenter.networks.resnet:RESNET",
    "resnet_slices": "isocenter.networks.resnet_slices:RESNET_SLICES",
    "resnext": "isocenter.networks.resnet:RESNEXT",
    "retinanet": "isocenter.networks.retinanet:RETINANET",
    "sam": "isocenter.networks.sam:SAM",
    "se_resnet": "isocenter.networks.resnet:SE_RESNET",
    "se_unet": "isocenter.networks.unet:SE_UNET",
    "segresnet": "isocenter.networks.segresnet:SEGRESNET",
    "separable_unet": "isocenter.networks.unet:SEPARABLE_UNET",
    "slide_windows": "isocenter.networks.slide_windows:SLIDE_WINDOWS",
    "swin_unetr": "isocenter.networks.monai_networks:SWIN_UNETR",
    "timm": "isocenter.networks.backbone:TIMM",
    "transunet": "isocenter.networks.transunet:TRANSUNET",
    "unet": "isocenter.networks.unet:UNET",
    "unet_plus_plus": "isocenter.networks.monai_networks:UNET_PLUS_PLUS",
    "unet_slices": "isocenter.networks.unet_slices:UNET_SLICES",
    "unetr": "isocenter.networks.monai_networks:UNETR",
    "unrolled": "isocenter.networks.unrolled:UNROLLED",
    "vgg": "isocenter.networks.vgg:VGG",
    "vit": "isocenter.networks.vit:VIT",
    "vnet": "isocenter.networks.monai_networks:VNET",
    "voxelmorph": "isocenter.networks.unet:VOXELMORPH",
    "yolox": "isocenter.networks.yolox:YOLOX",
}

lazy_index(__name__)
