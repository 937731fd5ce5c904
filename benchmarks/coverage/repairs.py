"""Attention as torch-pruning has to be told of it, and attributes that it leaves to its user.

Its examples give the number of heads for each of the layers that make queries, keys and values,
and after pruning write the new sizes into the attributes that forward methods read. They do so for
a handful of classes by name; here every module is recognised that has heads and such layers.
"""

from __future__ import annotations

from typing import Any

from torch import nn

COUNTS = ("num_heads", "num_attention_heads", "n_heads", "heads")
JOINT = ("qkv", "qkv_proj", "in_proj", "to_qkv")
QUERIES = ("q", "q_proj", "query", "q_lin", "to_q")
KEYS = ("k", "k_proj", "key", "v", "v_proj", "value", "to_k", "to_v")
KEYS_AND_VALUES = ("kv", "to_kv")
HEAD_SIZE = ("head_dim", "attention_head_size", "key_value_proj_dim", "dim_head")
WHOLE_SIZE = ("attn_dim", "all_head_size", "inner_dim", "embed_dim", "split_size", "dim_out")


def attention_layers(model: nn.Module) -> dict[nn.Module, int]:
    """The number of heads of every layer that makes queries, keys or values."""
    heads: dict[nn.Module, int] = {}
    for module in model.modules():
        count = _count(module)
        if count is None or isinstance(module, nn.MultiheadAttention):
            continue
        for name in (*JOINT, *QUERIES, *KEYS, *KEYS_AND_VALUES):
            layer = getattr(module, name, None)
            if isinstance(layer, nn.Linear | nn.Conv2d):
                shared = name in KEYS and hasattr(module, "num_key_value_groups")
                heads[layer] = count // module.num_key_value_groups if shared else count
    return heads


def repair(model: nn.Module, pruner: Any) -> None:
    """Writes the sizes after pruning into the attributes that forward methods read."""
    for module in model.modules():
        patches = getattr(module, "conv_proj", None)
        if hasattr(module, "hidden_dim") and isinstance(patches, nn.Conv2d):
            module.hidden_dim = patches.out_channels  # torchvision's ViT
        scale = getattr(module, "scale", None)
        if isinstance(getattr(module, "shape", None), tuple) and isinstance(scale, nn.Parameter):
            module.shape = (scale.numel(), *module.shape[1:])  # timm's MetaFormer
        if not isinstance(module, nn.MultiheadAttention):
            _repair_attention(module, pruner.num_heads)


def _repair_attention(module: nn.Module, heads: dict[nn.Module, int]) -> None:
    for name, parts in [*((name, 3) for name in JOINT), *((name, 1) for name in QUERIES)]:
        layer = getattr(module, name, None)
        if layer not in heads:
            continue
        count = heads[layer]
        whole = layer.weight.shape[0] // parts
        _replace(module, COUNTS, count)
        _replace(module, HEAD_SIZE, whole // count)
        _replace(module, WHOLE_SIZE, whole)
        keys = getattr(module, "k_proj", None)
        if hasattr(module, "num_key_value_groups") and keys in heads:
            module.num_key_value_groups = count // heads[keys]
        return


def _count(module: nn.Module) -> int | None:
    """Heads; of Llama's attention, whose module does not say, from its configuration."""
    for name in COUNTS:
        if isinstance(getattr(module, name, None), int):
            return int(getattr(module, name))
    if hasattr(module, "num_key_value_groups"):
        return int(module.config.num_attention_heads)
    return None


def _replace(module: nn.Module, names: tuple[str, ...], value: int) -> None:
    for name in names:
        if isinstance(getattr(module, name, None), int):
            setattr(module, name, value)
