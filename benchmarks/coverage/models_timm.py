"""A small network of each of timm's families, or two where a family has two kinds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from network import Model
from torch import Tensor, nn

# Families with the side of the image and the networks. Convolutional networks take the smallest
# image that leaves every stage a map of pixels; position embeddings and windows have the size that
# they were made for.
CONVOLUTIONAL: dict[str, tuple[int, tuple[str, ...]]] = {
    "convmixer": (64, ("convmixer_768_32",)),
    "convnext": (64, ("convnext_atto",)),
    "convnextv2": (64, ("convnextv2_atto",)),
    "cspnet": (64, ("cspresnet50", "cspdarknet53", "cs3darknet_s")),
    "densenet": (64, ("densenet121",)),
    "dla": (64, ("dla34", "dla46x_c")),
    "dpn": (64, ("dpn68",)),
    "ecaresnet": (64, ("ecaresnet26t",)),
    "efficientnet": (64, ("efficientnet_b0", "efficientnet_es")),
    "fasternet": (64, ("fasternet_t0",)),
    "fbnet": (64, ("fbnetc_100",)),
    "focalnet": (224, ("focalnet_tiny_srf",)),
    "gernet": (64, ("gernet_s",)),
    "ghostnet": (64, ("ghostnet_050", "ghostnetv2_100")),
    "hardcorenas": (64, ("hardcorenas_a",)),
    "hgnet": (64, ("hgnet_tiny", "hgnetv2_b0")),
    "hrnet": (64, ("hrnet_w18_small",)),
    "inception": (96, ("inception_v3", "inception_v4", "inception_resnet_v2")),
    "inception_next": (64, ("inception_next_atto",)),
    "lcnet": (64, ("lcnet_050",)),
    "mambaout": (64, ("mambaout_femto",)),
    "mixnet": (64, ("mixnet_s",)),
    "mnasnet": (64, ("mnasnet_small",)),
    "mobilenetv1": (64, ("mobilenetv1_100",)),
    "mobilenetv2": (64, ("mobilenetv2_050",)),
    "mobilenetv3": (64, ("mobilenetv3_small_050",)),
    "mobilenetv4": (64, ("mobilenetv4_conv_small_035",)),
    "mobileone": (64, ("mobileone_s0",)),
    "nasnet": (96, ("nasnetalarge", "pnasnet5large")),
    "nfnet": (64, ("dm_nfnet_f0", "nf_resnet26")),
    "poolformer": (64, ("poolformer_s12",)),
    "rdnet": (64, ("rdnet_tiny",)),
    "regnet": (64, ("regnetx_002", "regnety_002", "regnetz_005")),
    "repghostnet": (64, ("repghostnet_050",)),
    "repvgg": (64, ("repvgg_a0",)),
    "repvit": (64, ("repvit_m0_9",)),
    "res2net": (64, ("res2net50_14w_8s",)),
    "resnest": (64, ("resnest14d",)),
    "resnet": (64, ("resnet18", "resnet50_gn")),
    "resnetv2": (64, ("resnetv2_50",)),
    "resnext": (64, ("resnext50_32x4d",)),
    "rexnet": (64, ("rexnet_100",)),
    "selecsls": (64, ("selecsls42",)),
    "senet": (64, ("seresnet18", "legacy_seresnet18")),
    "sknet": (64, ("skresnet18",)),
    "starnet": (64, ("starnet_s1",)),
    "tinynet": (64, ("tinynet_e",)),
    "tresnet": (64, ("tresnet_m",)),
    "vgg": (64, ("vgg11_bn",)),
    "vovnet": (64, ("vovnet39a", "ese_vovnet19b_slim")),
    "xception": (96, ("xception41", "legacy_xception")),
}
TRANSFORMERS: dict[str, tuple[int, tuple[str, ...]]] = {
    "beit": (224, ("beit_base_patch16_224",)),
    "botnet": (256, ("botnet26t_256",)),
    "cait": (224, ("cait_xxs24_224",)),
    "coat": (224, ("coat_lite_tiny",)),
    "coatnet": (224, ("coatnet_pico_rw_224",)),
    "convit": (224, ("convit_tiny",)),
    "crossvit": (240, ("crossvit_9_240",)),
    "davit": (224, ("davit_tiny",)),
    "deit": (224, ("deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224")),
    "deit3": (224, ("deit3_small_patch16_224",)),
    "edgenext": (64, ("edgenext_xx_small",)),
    "efficientformer": (224, ("efficientformer_l1", "efficientformerv2_s0")),
    "efficientvit": (224, ("efficientvit_b0", "efficientvit_m0")),
    "eva02": (224, ("eva02_tiny_patch14_224",)),
    "fastvit": (64, ("fastvit_t8",)),
    "gcvit": (224, ("gcvit_xxtiny",)),
    "gmlp": (224, ("gmlp_ti16_224",)),
    "halonet": (256, ("halonet26t",)),
    "hiera": (224, ("hiera_tiny_224",)),
    "lambda_resnet": (256, ("lambda_resnet26t",)),
    "levit": (224, ("levit_128s",)),
    "maxvit": (256, ("maxvit_pico_rw_256",)),
    "metaformer": (64, ("convformer_s18", "caformer_s18")),
    "mlp_mixer": (224, ("mixer_s32_224",)),
    "mobilevit": (64, ("mobilevit_xxs", "mobilevitv2_050")),
    "mvitv2": (224, ("mvitv2_tiny",)),
    "nest": (224, ("nest_tiny",)),
    "nextvit": (64, ("nextvit_small",)),
    "pit": (224, ("pit_ti_224",)),
    "pvt_v2": (64, ("pvt_v2_b0",)),
    "resmlp": (224, ("resmlp_12_224",)),
    "sequencer": (224, ("sequencer2d_s",)),
    "shvit": (64, ("shvit_s1",)),
    "swiftformer": (64, ("swiftformer_xs",)),
    "swin": (224, ("swin_tiny_patch4_window7_224",)),
    "swinv2": (256, ("swinv2_tiny_window8_256",)),
    "tiny_vit": (224, ("tiny_vit_5m_224",)),
    "tnt": (224, ("tnt_s_patch16_224",)),
    "twins": (224, ("twins_pcpvt_small", "twins_svt_small")),
    "visformer": (224, ("visformer_tiny",)),
    "vit": (224, ("vit_tiny_patch16_224", "vit_relpos_small_patch16_224")),
    "vit_hybrid": (224, ("vit_small_r26_s32_224",)),
    "vitamin": (224, ("vitamin_small_224",)),
    "volo": (224, ("volo_d1_224",)),
    "xcit": (224, ("xcit_nano_12_p16_224",)),
}


def models() -> Iterator[Model]:
    for family, (size, names) in sorted({**CONVOLUTIONAL, **TRANSFORMERS}.items()):
        for name in names:
            yield Model(
                name=f"timm/{name}",
                family=f"timm {family}",
                build=partial(_build, name),
                example=partial(_example, size),
                classes=1000,
            )


def _build(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False)


def _example(size: int) -> tuple[Tensor, ...]:
    return (torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)),)
