"""How the report writes its numbers and names."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

from regrow.bench.report.records import CONTROL
from regrow.bench.statistics import Interval, standard_deviation

GAP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
_ENGINES = {
    "regrow": "regrow's runtime",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "torch": "PyTorch",
}


def arm_name(name: str) -> str:
    """An arm's name in running text."""
    return "one-way" if name == CONTROL else name.replace("_", " ")


def engine(name: str) -> str:
    """What the makers of a timed engine call it."""
    return _ENGINES.get(name, name)


def sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def accuracy(value: float) -> str:
    """A fraction in percent, as in 97.22 %."""
    return f"{100 * value:.2f}{GAP}%"


def sparsity(value: float) -> str:
    """A fraction in percent with no more digits than it needs, at least two for the density."""
    digits = 2 if value <= 0.999 else 4
    return f"{100 * value:.{digits}f}".rstrip("0").rstrip(".") + f"{GAP}%"


def signed(value: float) -> str:
    """A number with two decimals and its sign; no sign for what rounds to zero."""
    text = f"{value:+.2f}".replace("-", MINUS)
    return "0.00" if text[1:] == "0.00" else text


def count(value: float) -> str:
    """A whole number with separators; a mean that is not whole keeps one decimal."""
    rounded = round(float(value), 1)
    return f"{rounded:,.0f}" if rounded.is_integer() else f"{rounded:,.1f}"


def size(value: float) -> str:
    """A number of bytes in decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g}{GAP}{unit}"
    return f"{value:.0f}{GAP}B"


def times(value: float) -> str:
    """A factor, as in 19.6."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def smaller(dense: float, packed: float) -> str:
    """How many times smaller a file is than the dense weights; "" where it hardly is."""
    factor = dense / packed if packed else 0.0
    return f"{times(factor)} times smaller" if factor >= 1.05 else ""


def milliseconds(value: float) -> str:
    """A time in milliseconds, as in 0.0142 ms."""
    return f"{times(value)}{GAP}ms"


def faster(other: float, own: float) -> str:
    """How many times faster or slower a time is, before the name of the other one."""
    factor = other / own
    return (
        f"{factor:.2f} times as fast as" if factor >= 1 else f"{1 / factor:.2f} times slower than"
    )


def seeds(n: int) -> str:
    """A number of seeds in words."""
    return "1 seed" if n == 1 else f"{n} seeds"


def bounds(interval: Interval) -> str:
    """The bounds of an interval of differences given in points, or a dash."""
    if interval.low is None or interval.high is None:
        return "\N{EN DASH}"
    return f"{signed(interval.low)}{GAP}to{GAP}{signed(interval.high)}"


def spread(values: Iterable[float]) -> tuple[str, str]:
    """Mean and standard deviation of accuracies given as fractions; "" for one value."""
    sample = list(values)
    deviation = standard_deviation(sample)
    mean = accuracy(fmean(sample))
    return mean, "" if deviation is None else f"±{GAP}{100 * deviation:.2f}"


def joined(items: Iterable[str]) -> str:
    """Items as a phrase: a, b and c."""
    listed = list(items)
    return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} and {listed[-1]}"
