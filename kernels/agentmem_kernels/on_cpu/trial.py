"""Whether the kernels can run here: a small case of each is compared with its specification before they are used."""

from __future__ import annotations

import platform
import sys
from functools import cache

import torch

from agentmem_kernels import reference
from agentmem_kernels.on_cpu.building import BuildError
from agentmem_kernels.on_cpu.calls import attend, block_masses, multiply_int8
from agentmem_kernels.on_cpu.library import loaded

NEEDED = ("avx512_bf16", "avx512_f", "avx512_bw", "avx512_vl", "avx512_dq")

NAMES = ("attend", "block_masses", "multiply_int8")


@cache
def hindrance() -> str | None:
    """Why the kernels cannot run in this process, and the remedy; None when they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "they are made for Linux on x86_64"
    able = torch.cpu.get_capabilities()
    lacking = [name for name in NEEDED if not able.get(name)]
    if lacking:
        return f"this CPU lacks {', '.join(lacking)}"
    try:
        loaded()
    except BuildError as error:
        return str(error)
    with torch.inference_mode():
        wrong = [
            name
            for name, right in zip(NAMES, (_attends(), _weighs(), _multiplies()), strict=True)
            if not right
        ]
    return f"{', '.join(wrong)} did not agree with the specification; report this" if wrong else None


def _attends() -> bool:
    shapes = ((1, 4, 9, 32), (1, 2, 70, 32), (1, 2, 70, 32))
    q, keys, values = (_made(number, shape) for number, shape in enumerate(shapes))
    mask = torch.zeros(9, 70).masked_fill(torch.ones(9, 70).triu(62).bool(), -torch.inf).bfloat16()
    found = attend(q, keys, values, scaling=0.25, mask=mask)
    wanted = reference.attend(q, keys, values, scaling=0.25, mask=mask)
    return torch.allclose(found.float(), wanted.float(), atol=0.02)


def _weighs() -> bool:
    queries, blocks = _made(0, (2, 9, 32)), _made(1, (2, 14, 5, 32))
    found = block_masses(queries.float(), [blocks], dead=None, edge=2)
    return torch.allclose(found, reference.block_masses(queries.float(), blocks, edge=2), atol=1e-3)


def _multiplies() -> bool:
    x, steps = _made(0, (7, 150)), (60 * _made(1, (5, 150)).float()).round().to(torch.int8)
    scales = _made(2, (5,))
    wanted = reference.multiply_int8(x, steps, scales)
    return torch.allclose(multiply_int8(x, steps, scales).float(), wanted.float(), atol=1e-3, rtol=0.01)


def _made(number: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers between -2 and 2 without a pattern that matters; draws no random ones."""
    count = int(torch.tensor(shape).prod())
    return (2 * torch.sin(torch.arange(count) * (1.7 + number))).view(shape).bfloat16()
