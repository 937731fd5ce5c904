"""How much pruning changed what each layer sees: structural similarity of activation maps.

Bidirectional pruning-regrowth (Liu and Sheng 2025, and the authors' follow-up code) compares, per
convolution, one map of the dense network with one of the sparse network. A low similarity means
much damage and first claim on regrown weights.

Departures: the paper gives linear layers no map; here a linear layer's outputs are compared as a
vector, by cosine similarity, so that every prunable layer has a value. The maps of 1-d
convolutions are rows of one line and are compared by cosine too.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regrow.core.errors import RegrowError, unknown
from regrow.core.names import unwrap
from regrow.model.counters import Hook, observed

_WINDOW = 7
_C1, _C2 = 0.01**2, 0.03**2  # (K L)^2 with data range L = 1
_FLAT = 1e-6  # a relative spread that single precision cannot tell from a constant


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity of two maps (Wang et al. 2004, eq. 13, uniform window).

    The mean, over all windows that lie inside the map, of
        (2 m_a m_b + C1) (2 s_ab + C2) / ((m_a^2 + m_b^2 + C1) (s_a^2 + s_b^2 + C2)),
    with means m, sample variances s^2 and covariance s_ab (divisor N - 1 for N pixels), and
    C1 = 0.01^2, C2 = 0.03^2. The window is the largest odd square that fits, at most 7 x 7.
    Maps with a side below 3 have no window: for them, cosine similarity (of two zero maps 1, of a
    zero map and another 0).

    Args:
        a, b: shape (H, W), values in [0, 1].

    Returns:
        A finite number in [-1, 1]; 1 for identical maps.

    Raises:
        RegrowError: shapes differ or are not (H, W), or values leave [0, 1].
    """
    if a.shape != b.shape or a.ndim != 2 or not a.numel():
        raise RegrowError(
            "ssim compares two maps of the same shape (H, W), not empty; got "
            f"{tuple(a.shape)} and {tuple(b.shape)}."
        )
    for name, values in (("a", a), ("b", b)):
        if not ((values >= 0) & (values <= 1)).all():
            raise RegrowError(f"ssim needs values in [0, 1]; map {name} leaves it or holds NaN.")
    a, b = a.detach().double(), b.detach().double()
    if min(a.shape) < 3:
        return _cosine(a.flatten(), b.flatten())
    side = min(_WINDOW, *a.shape)
    side -= 1 - side % 2
    unbias = side**2 / (side**2 - 1)

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x[None, None], side, stride=1)[0, 0]

    m_a, m_b = mean(a), mean(b)
    v_a = unbias * (mean(a * a) - m_a * m_a)
    v_b = unbias * (mean(b * b) - m_b * m_b)
    v_ab = unbias * (mean(a * b) - m_a * m_b)
    top = (2 * m_a * m_b + _C1) * (2 * v_ab + _C2)
    value = (top / ((m_a**2 + m_b**2 + _C1) * (v_a + v_b + _C2))).mean()
    return float(value.clamp(-1, 1))


def layer_maps(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[nn.Module, Any], Any],
    names: Sequence[str],
) -> dict[str, Tensor]:
    """One activation map per layer, averaged over all samples and scaled to [0, 1].

    For outputs F of shape (B, C, H, W): A = sum_c F; each sample's A is divided by its L1 norm (a
    zero map stays zero); the mean over samples, and over calls where a layer runs several times,
    is shifted and scaled to span [0, 1] (a constant map becomes 0).

    Args:
        model: any network, run in evaluation mode without gradients and left as it was.
        batches: at least one; give the dense and the sparse network the same.
        forward: runs the model on a batch, for instance the loss function; its result is ignored.
        names: modules by name, as in `model.named_modules()`.

    Returns:
        By name, float64 maps on the CPU: (H, W); for 1-d convolutions (1, L); for linear layers
        (1, out_features), other dimensions summed. A map of one pixel is 0 in every network.

    Raises:
        RegrowError: an unknown name, no batch, a layer that never ran, whose output is not such a
            tensor, changes its size or is not finite.
    """
    return maps_of((model,), batches, forward, names)[0]


def maps_of(
    models: Sequence[nn.Module],
    batches: Iterable[Any],
    forward: Callable[[nn.Module, Any], Any],
    names: Iterable[str],
) -> list[dict[str, Tensor]]:
    """`layer_maps` of several networks of one class, each batch seen by all of them in turn."""
    networks, names = [unwrap(model) for model in models], tuple(names)
    found: list[dict[str, Tensor]] = [{} for _ in networks]
    with contextlib.ExitStack() as stack:
        for network, sums in zip(networks, found, strict=True):
            modules = dict(network.named_modules())
            for name in names:
                if name not in modules:
                    raise unknown("module", name, modules)
            hooks = {modules[name]: _collector(name, sums) for name in names}
            stack.enter_context(observed(network, hooks))
        for batch in batches:
            for network in networks:
                forward(network, batch)
    for sums in found:
        silent = [name for name in names if name not in sums]
        if silent:
            raise RegrowError(
                f"no output of layer {silent[0]!r} was seen: either there were no batches, or "
                "`forward` does not run it; leave the layer out of `names`."
            )
    # Scaling to [0, 1] makes no difference between the sum of all maps and their mean.
    return [{name: _min_max(sums[name]) for name in names} for sums in found]


def _collector(name: str, sums: dict[str, Tensor]) -> Hook:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        maps = _normalised(name, module, output)
        known = sums.setdefault(name, torch.zeros(maps.shape[1:], dtype=torch.float64))
        if known.shape != maps.shape[1:]:
            raise RegrowError(
                f"maps of layer {name!r} differ in size, {tuple(known.shape)} and then "
                f"{tuple(maps.shape[1:])}; give batches of one size, or leave the layer out."
            )
        known += maps.sum(0)

    return hook


def damage(dense: Mapping[str, Tensor], sparse: Mapping[str, Tensor]) -> dict[str, float]:
    """Similarity of each layer before and after pruning: low = much damage.

    Args:
        dense, sparse: `layer_maps` of the two networks, over the same batches and names.

    Raises:
        RegrowError: the layers or the sizes of their maps differ.
    """
    if dense.keys() != sparse.keys():
        raise RegrowError(
            "dense and sparse maps are of different layers: "
            f"{sorted(dense.keys() ^ sparse.keys())} appear on one side only."
        )
    for name, before in dense.items():
        if before.shape != sparse[name].shape:
            raise RegrowError(
                f"maps of layer {name!r} differ in size, dense {tuple(before.shape)} and sparse "
                f"{tuple(sparse[name].shape)}; collect both over the same batches."
            )
    return {name: ssim(dense[name], sparse[name]) for name in dense}


def _cosine(a: Tensor, b: Tensor) -> float:
    norms = a.norm(), b.norm()
    if min(norms) == 0:
        return float(max(norms) == 0)
    return min(1.0, float((a / norms[0]) @ (b / norms[1])))


def _normalised(name: str, module: nn.Module, output: Any) -> Tensor:
    """Each sample's map (B, H, W) with unit L1 norm, float64 on the CPU."""
    if isinstance(output, tuple) and output:  # attention gives its weights beside its output
        output = output[0]
    if isinstance(module, nn.Linear) and output.ndim > 1:
        # (B, ..., features): the features take the place of pixels, the rest that of channels.
        rest = math.prod(output.shape[1:-1])
        output = output.reshape(len(output), rest, 1, output.shape[-1])
    elif isinstance(output, Tensor) and output.ndim == 3:
        output = output.unsqueeze(2)
    if not isinstance(output, Tensor) or output.ndim != 4:
        what = (
            f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        )
        raise RegrowError(
            f"layer {name!r} ({type(module).__name__}) gives {what}; maps are made of outputs "
            "(B, C, H, W) or (B, C, L) and of linear layers; leave the layer out."
        )
    # At least single precision; doubles only once off the device, for not every device has them.
    single = torch.promote_types(output.dtype, torch.float32)
    maps = output.sum(1, dtype=single).cpu().double()
    if not torch.isfinite(maps).all():
        raise RegrowError(
            f"outputs of layer {name!r} hold NaN or infinite values; damage needs sound networks."
        )
    norm = maps.abs().sum((1, 2), keepdim=True)
    return maps / torch.where(norm > 0, norm, 1.0)


def _min_max(values: Tensor) -> Tensor:
    low, span = values.min(), values.max() - values.min()
    if span <= _FLAT * values.abs().max():
        return torch.zeros_like(values)
    return (values - low) / span
