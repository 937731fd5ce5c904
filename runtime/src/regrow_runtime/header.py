"""The header of the packed file: JSON in one spelling, deflated, and what it must say."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regrow_runtime.arrays import DTYPES, FLOATS, need
from regrow_runtime.check_graph import check_graph
from regrow_runtime.errors import RuntimeFileError
from regrow_runtime.graph import Graph, Node
from regrow_runtime.sections import CODED, GRID_LIMIT, Entry, grid

LIMIT = 4 * 2**20
DEPTH_LIMIT = 32
RANK_LIMIT = 32

_DIGITS_LIMIT = 19
_KEYS = {"arrays", "checksum", "dtype", "values"}
_NODE_DEFAULTS: Mapping[str, Any] = {"arrays": {}, "attributes": {}, "module": ""}


@dataclass(frozen=True, eq=False)
class Header:
    """What a header says: sections in their order, further names for their arrays, the rest."""

    entries: tuple[Entry, ...]
    aliases: Mapping[str, str]
    graph: Graph | None
    metadata: Mapping[str, Any]


def write_header(header: Header) -> bytes:
    """The JSON of a header, once `read_header` takes it.

    Raises:
        RuntimeFileError: JSON would not give names, graph or metadata back, or they are too long.
    """
    need(type(header.metadata) is dict, "metadata is not a dict")
    check_plain(header.metadata, DEPTH_LIMIT)
    try:
        raw = _canonical(
            {
                "aliases": dict(header.aliases),
                "graph": None if header.graph is None else _graph_value(header.graph),
                "metadata": header.metadata,
                "sections": [_entry_value(entry) for entry in header.entries],
            }
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise RuntimeFileError(
            f"names, graph or metadata cannot be written as JSON: {error}"
        ) from error
    need(len(raw) <= LIMIT, f"names, graph and metadata take more than {LIMIT:,} bytes")
    read_header(raw)
    return raw


def read_header(raw: bytes) -> Header:
    """What the JSON says, once all of it is well formed.

    Raises:
        RuntimeFileError: it is not canonical, or breaks a rule of docs/format-2.md.
    """
    try:
        header = json.loads(raw, parse_int=_integer)
        canonical = _canonical(header) == raw
    except (ValueError, RecursionError):
        canonical = False
    need(canonical, "the header is not canonical JSON")
    keys = {"aliases", "graph", "metadata", "sections"}
    need(type(header) is dict and set(header) == keys, "the header has other keys")
    need(type(header["metadata"]) is dict, "metadata is not an object")
    check_plain(header["metadata"], DEPTH_LIMIT)
    need(type(header["sections"]) is list, "sections is not a list")
    entries = tuple(_entry(value) for value in header["sections"])
    kinds: dict[str, tuple[tuple[int, ...], str]] = {}
    for entry in entries:
        for name, shape in zip(entry.names, entry.shapes, strict=True):
            need(name not in kinds, f"{entry.where}: the name {name!r} is repeated")
            kinds[name] = shape, entry.dtype
    need(type(header["aliases"]) is dict, "aliases is not an object")
    stored = dict(kinds)
    for alias, target in header["aliases"].items():
        need(alias not in stored, f"alias {alias!r} is an array's name")
        need(type(target) is str and target in stored, f"alias {alias!r} names no array")
        kinds[alias] = stored[target]
    graph = None
    if header["graph"] is not None:
        graph = _graph(header["graph"])
        check_graph(graph, kinds)
    return Header(entries, header["aliases"], graph, header["metadata"])


def deflate(raw: bytes) -> bytes:
    coder = zlib.compressobj(9, wbits=-15)
    return coder.compress(raw) + coder.flush()


def inflate(data: bytes, length: int) -> bytes:
    """Exactly `length` bytes, at most `LIMIT`; a bomb is stopped one byte after them."""
    coder = zlib.decompressobj(wbits=-15)
    try:
        raw = coder.decompress(data, length + 1)
    except zlib.error:
        raw = b""
    whole = coder.eof and not coder.unused_data and len(raw) == length
    need(whole, f"the header does not inflate to {length} bytes")
    return raw


def check_plain(value: Any, depth: int) -> None:
    """Refuse what JSON would not give back unchanged, and nesting that a parser cannot follow."""
    need(depth > 0, f"metadata is nested deeper than {DEPTH_LIMIT} levels")
    if isinstance(value, dict):
        for key, inner in value.items():
            need(isinstance(key, str), f"metadata has the key {key!r}, which is not a string")
            check_plain(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            check_plain(inner, depth - 1)
    elif isinstance(value, int):
        need(-(2**63) <= value < 2**63, "metadata holds an integer of more than 64 bits")
    else:
        need(
            value is None or isinstance(value, (str, float)),
            f"metadata holds a {type(value).__name__}; "
            "use dicts, lists, strings, finite numbers, booleans and None",
        )


def _canonical(value: Any) -> bytes:
    """Sorted keys, no spaces, no NaN: one spelling for one value."""
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    )
    return text.encode("utf-8")


def _integer(digits: str) -> int:
    # Old Pythons take a quadratic time for integers of any length.
    if len(digits) > _DIGITS_LIMIT + digits.startswith("-"):
        raise ValueError("an integer of more than 64 bits")
    return int(digits)


def _entry_value(entry: Entry) -> dict[str, Any]:
    value: dict[str, Any] = {
        "arrays": [
            [name, list(shape)] for name, shape in zip(entry.names, entry.shapes, strict=True)
        ],
        "checksum": entry.checksum,
        "dtype": entry.dtype,
        "values": entry.values,
    }
    if entry.origin != entry.dtype:
        value["origin"] = entry.origin
    if entry.kept is not None:
        value.update(kept=entry.kept, positions=entry.positions)
    if entry.scales is not None:
        value["scales"] = entry.scales
    if entry.levels is not None:
        value["levels"] = entry.levels
    return value


def _entry(value: Any) -> Entry:
    """A section, once its numbers fit each other."""
    need(type(value) is dict, "a section is not an object")
    arrays = value.get("arrays")
    fine = type(arrays) is list and len(arrays) > 0 and all(map(_is_named, arrays))
    need(fine, "a section does not list names and shapes of its arrays")
    where = f"section {arrays[0][0]!r}"
    sparse, scaled = "kept" in value, "scales" in value
    keys = _KEYS | ({"kept", "positions"} if sparse else set())
    keys |= {key for key in ("origin", "scales", "levels") if key in value}
    need(set(value) == keys, f"{where}: unexpected keys")
    need(len(arrays) == 1 or not (sparse or scaled), f"{where}: several arrays with mask or scales")
    dtype, origin = value["dtype"], value.get("origin")
    need(type(dtype) is str and dtype in DTYPES, f"{where}: the format has no dtype {dtype!r}")
    fits = origin is None and not scaled
    if origin is not None:
        need(type(origin) is str, f"{where}: the origin is not a dtype")
        fits = origin in FLOATS and origin != dtype and (scaled or dtype in FLOATS)
    need(fits, f"{where}: {dtype} values cannot come from {origin or dtype}")
    need(not scaled or dtype == "int8", f"{where}: {dtype} values with scales")
    shapes = tuple(_shape(shape, dtype, where) for _, shape in arrays)
    checksum = value["checksum"]
    need(type(checksum) is str and len(checksum) == 32, f"{where}: the checksum is not one")
    names = ("values", "kept", "positions", "scales", "levels")
    counts = {key: value[key] for key in names if key in value}
    for key, count in counts.items():
        need(type(count) is int and 0 <= count < 2**63, f"{where}: {key} is not a count")
    entry = Entry(
        names=tuple(name for name, _ in arrays),
        shapes=shapes,
        dtype=dtype,
        origin=origin or dtype,
        kept=counts.get("kept"),
        positions=counts.get("positions", 0),
        values=counts["values"],
        scales=counts.get("scales"),
        levels=counts.get("levels"),
        checksum=checksum,
    )
    _check_lengths(entry)
    return entry


def _check_lengths(entry: Entry) -> None:
    where, kept = entry.where, entry.count if entry.kept is None else entry.kept
    need(kept <= entry.count, f"{where}: more entries kept than there are")
    whole = kept * DTYPES[entry.dtype].itemsize
    shorter = entry.dtype in CODED and 0 < entry.values < whole
    need(entry.values == whole or shorter, f"{where}: {whole} bytes of values take another length")
    if entry.kept is not None:
        raw = 0 if kept in (0, entry.count) else -(-entry.count // 8)
        rows, columns, _ = grid(entry.shapes[0])
        shorter = rows * columns < GRID_LIMIT and 0 < entry.positions < raw
        need(
            entry.positions == raw or shorter,
            f"{where}: the positions of {kept} in {entry.count} entries take another length",
        )
    if entry.levels is not None:
        need(entry.scales is not None, f"{where}: levels without scales")
        need(0 < entry.levels <= 127, f"{where}: {entry.levels} levels, of at most 127")
    if entry.scales is not None:
        need(len(entry.shapes[0]) > 0, f"{where}: scales of a scalar")
        whole = 4 * entry.factors
        shorter = 0 < entry.scales < whole
        need(entry.scales == whole or shorter, f"{where}: its scales take another length")


def _is_named(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and type(value[0]) is str and value[0] != ""


def _shape(value: Any, dtype: str, where: str) -> tuple[int, ...]:
    fine = type(value) is list and len(value) <= RANK_LIMIT
    need(fine, f"{where}: the shape is no short list")
    fine = all(type(extent) is int and 0 <= extent < 2**63 for extent in value)
    need(fine, f"{where}: the shape has a bad extent")
    # Zeros count as one here: an empty array of absurd extents must not overflow its strides.
    spread = math.prod(max(extent, 1) for extent in value) * DTYPES[dtype].itemsize
    need(spread < 2**63, f"{where}: the shape is too large")
    return tuple(value)


def _graph_value(graph: Graph) -> dict[str, Any]:
    nodes = []
    for node in graph.nodes:
        value = {
            "arrays": dict(node.arrays),
            "attributes": dict(node.attributes),
            "inputs": node.inputs,
            "module": node.module,
            "op": node.op,
            "output": node.output,
        }
        nodes.append({key: one for key, one in value.items() if one != _NODE_DEFAULTS.get(key)})
    return {"inputs": graph.inputs, "nodes": nodes, "outputs": graph.outputs}


def _graph(value: Any) -> Graph:
    """A graph of the right types, of which nothing else is checked yet."""
    fine = type(value) is dict and set(value) == {"inputs", "nodes", "outputs"}
    need(fine and all(type(part) is list for part in value.values()), "the graph has other keys")
    fine = all(type(item) is list and len(item) == 3 for item in value["inputs"])
    need(fine, "an input of the graph is not a name, a shape and a dtype")
    inputs = tuple((name, _tuple(shape), dtype) for name, shape, dtype in value["inputs"])
    nodes = tuple(_node(node, f"node {index}") for index, node in enumerate(value["nodes"]))
    return Graph(inputs, tuple(value["outputs"]), nodes)


def _node(value: Any, where: str) -> Node:
    need(type(value) is dict, f"{where} is not an object")
    keys = {"inputs", "op", "output"} | {key for key in _NODE_DEFAULTS if key in value}
    need(set(value) == keys, f"{where} has other keys")
    for key, default in _NODE_DEFAULTS.items():
        fine = key not in value or (type(value[key]) is type(default) and value[key] != default)
        need(fine, f"{where}: {key} is empty or of another type")
    full = {**_NODE_DEFAULTS, **value}
    return Node(
        op=full["op"],
        inputs=_tuple(full["inputs"]),
        output=full["output"],
        arrays=dict(full["arrays"]),
        attributes=dict(full["attributes"]),
        module=full["module"],
    )


def _tuple(value: Any) -> tuple[Any, ...]:
    need(type(value) is list, "the graph has another value where a list belongs")
    return tuple(value)
