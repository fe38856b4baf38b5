"""A digest of what changes figures: our own source, versions, processor, threads, sizes. Knows no cell."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import agentmem
import agentmem_kernels
from benchmarks.speed.plan import Sizes

_LASTING = ("agentmem", "torch", "transformers", "cpu", "threads")
"""The facts of a run that are not of the moment."""


def setting_of(facts: Mapping[str, str], sizes: Sizes) -> str:
    """Two runs of the same setting may go on with each other's cells."""
    lasting = {name: facts[name] for name in _LASTING}
    text = json.dumps([lasting, asdict(sizes), source_digest()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_digest() -> str:
    """Of every module of the packages that are measured."""
    digest = hashlib.sha256()
    for package in (agentmem, agentmem_kernels):
        assert package.__file__ is not None, "a package of files"
        folder = Path(package.__file__).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
