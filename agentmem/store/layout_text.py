"""A layout as two columns of the index say it. Knows no SQLite.

Of rows in one byte an element the second column also names what they are read as, and their key channels in
base64: ``torch.int8 torch.bfloat16 ...``. A version of agentmem that cannot read them finds a dtype it does not know.
"""

from __future__ import annotations

import base64
import json
from typing import Final

import torch

from agentmem.memory.source import KVLayout

_DTYPES: Final = {str(dtype): dtype for dtype in (torch.bfloat16, torch.float16, torch.float32)}
_INT8: Final = str(torch.int8)


def layout_columns(layout: KVLayout) -> tuple[str, str]:
    """The columns ``layers``, the model's shapes as JSON, and ``dtype``."""
    layers = json.dumps(layout.decoded.layers, separators=(",", ":"))
    if layout.codec is None:
        return layers, str(layout.dtype)
    channels = base64.b64encode(layout.codec.channels).decode()
    return layers, f"{_INT8} {layout.codec.dtype} {channels}"


def layout_of(layers: str, dtype: str) -> KVLayout:
    """The layout that the columns say. Raises ValueError, TypeError, KeyError, RecursionError, ShapeError."""
    shapes = tuple((heads, dim) for heads, dim in json.loads(layers))
    kind, *rest = dtype.split(" ")
    if kind != _INT8:
        return KVLayout(shapes, _DTYPES[dtype])
    read_as, channels = rest
    return KVLayout(shapes, _DTYPES[read_as]).in_int8(base64.b64decode(channels, validate=True))
