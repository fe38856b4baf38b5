"""From a model's name to a loaded model: resolve, bring the files, load.

A name is a local folder, a GGUF file, a built-in entry or a Hugging Face id, with ``:int8`` behind it for
rounded weights. Pickled weights and code
from repositories are never loaded. Knows nothing of memories; binding is another module's job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from agentmem.engine.cache import CACHE_VARIABLE, ModelCache, default_cache
from agentmem.engine.catalog import CATALOG, CatalogEntry
from agentmem.engine.fetch import Fetcher
from agentmem.engine.gguf_convert import conversion_key, convert, read_note, read_tokenizer
from agentmem.engine.hub import Hub
from agentmem.engine.progress import SILENT, Progress
from agentmem.engine.quiet import quiet
from agentmem.engine.weight_forms import INT8_SUFFIX, Form, split_form
from agentmem.engine.weights_digest import FileDigests, digest_files
from agentmem.errors import ConfigError, DownloadError, ModelNotFoundError, UnsupportedModelError

Kind = Literal["folder", "gguf", "built-in", "hub"]
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class ResolvedModel:
    """What a name means. ``name`` finds the same model again: a built-in, a hub id or an absolute path."""

    name: str
    kind: Kind
    path: Path | None = None
    """The folder or GGUF file; None for what lies elsewhere."""
    entry: CatalogEntry | None = None
    form: Form = "packed"
    """How its weights are to be held; part of the name."""

    @property
    def source_name(self) -> str:
        """The name without the form: where the files are found."""
        return split_form(self.name)[0] if self.form == "int8" else self.name


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, and which one it is. ``weights_digest`` names the stored weights exactly."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    weights_digest: str
    source: ResolvedModel
    folder: Path


def resolve(name: str | Path) -> ResolvedModel:
    """Say what a name means, without touching the network.

    Raises:
        ModelNotFoundError: nothing fits; the message lists what would.
    """
    text = str(name).strip()
    source, form = split_form(text) if _existing(text) is None else (text, "packed")
    path, suffix = _existing(source), text.removeprefix(source)
    if isinstance(name, str) and source in CATALOG:
        return ResolvedModel(text, "built-in", entry=CATALOG[source], form=form)
    is_gguf = source.lower().endswith(".gguf")
    if path is not None and path.is_dir():
        return ResolvedModel(f"{path}{suffix}", "folder", path=path, form=form)
    if path is not None and is_gguf:
        return ResolvedModel(f"{path}{suffix}", "gguf", path=path, form=form)
    if path is None and isinstance(name, str) and HUB_ID.fullmatch(source) and not is_gguf:
        return ResolvedModel(text, "hub", form=form)
    found = "is a file, but not a .gguf one" if path is not None else "is not a model"
    raise ModelNotFoundError(
        f"{text!r} {found}. A model is one of the built-ins {', '.join(CATALOG)}; a folder with "
        "config.json and *.safetensors; a .gguf file; or a Hugging Face id such as Qwen/Qwen2.5-0.5B-Instruct. "
        f"With {INT8_SUFFIX} behind it, its weights are held in one byte each."
    )


def _existing(text: str) -> Path | None:
    """The absolute path, where there is something; a text no path can be is nothing."""
    try:
        return Path(text).expanduser().resolve(strict=True) if text else None
    except (OSError, RuntimeError, ValueError):
        return None


class ModelLoader:
    """Brings resolved models into one cache and loads them."""

    def __init__(
        self, cache: ModelCache | None = None, *, fetcher: Fetcher | None = None, hub: Hub | None = None
    ) -> None:
        self.cache = cache if cache is not None else default_cache()
        self._hub = hub if hub is not None else Hub()
        self._fetcher = fetcher if fetcher is not None else Fetcher(self.cache, hub=self._hub)

    def bring(self, resolved: ResolvedModel, *, progress: Progress = SILENT) -> Path:
        """The folder to load from; downloads and converts what is not there.

        Raises:
            DownloadError, HashMismatchError: the files cannot be had.
            ModelNotFoundError: the hub knows no such repository.
            UnsupportedModelError: the files are there but cannot be used.
        """
        try:
            folder = self._bring(resolved, progress)
        except (OSError, SafetensorError) as error:
            raise DownloadError(
                f"{resolved.name} cannot be brought into the cache {self.cache.root}: {error}. "
                f"Free some space, or set {CACHE_VARIABLE} to another folder."
            ) from error
        check_folder(folder)
        return folder

    def _bring(self, resolved: ResolvedModel, progress: Progress) -> Path:
        if resolved.kind == "built-in" and resolved.entry is not None:
            entry = resolved.entry
            folder = self.cache.part("converted") / conversion_key(entry.sha256)
            if read_note(folder) is None:
                file = self._fetcher.fetch(entry, progress=progress)
                folder = convert(file, entry.sha256, self.cache, progress=progress)
        elif resolved.kind == "gguf" and resolved.path is not None:
            sha256 = FileDigests(self.cache).sha256(resolved.path)
            folder = convert(resolved.path, sha256, self.cache, progress=progress)
        elif resolved.path is not None:
            folder = resolved.path
        else:
            with progress.task(f"Fetching {resolved.source_name} from {self._hub.endpoint}", None), quiet():
                folder = self._hub.folder(resolved.source_name)
        return folder

    def load(
        self,
        resolved: ResolvedModel,
        *,
        device: str = "auto",
        dtype: str = "auto",
        progress: Progress = SILENT,
    ) -> LoadedModel:
        """Load model and tokenizer in evaluation mode.

        ``device``: "auto" is CUDA where there is one, else the CPU; else what torch accepts.
        ``dtype``: "auto" is the checkpoint's own (float16 becomes bfloat16 on the CPU), "float32" or
        "bfloat16".

        Raises:
            ConfigError: an unknown device or dtype. Else as :meth:`bring`.
        """
        place = _device(device)
        if dtype != "auto" and dtype not in DTYPES:
            raise ConfigError(f"dtype={dtype!r} is unknown; use auto, {', '.join(DTYPES)}.")
        folder = self.bring(resolved, progress=progress)
        with quiet():
            model, tokenizer = _read(folder, DTYPES.get(dtype), place)
        return LoadedModel(model, tokenizer, resolved.name, self._digest(folder), resolved, folder)

    def _digest(self, folder: Path) -> str:
        """A conversion is named by its GGUF, so that it is the same on every machine; else by content."""
        note = read_note(folder)
        if note is not None:
            return f"gguf-sha256:{note['gguf_sha256']}/v{note['conversion']}"
        return digest_files(weight_files(folder), FileDigests(self.cache))


def load(
    resolved: ResolvedModel,
    *,
    device: str = "auto",
    dtype: str = "auto",
    cache: ModelCache | None = None,
    progress: Progress = SILENT,
) -> LoadedModel:
    """Load through the user's cache; see :meth:`ModelLoader.load`."""
    return ModelLoader(cache).load(resolved, device=device, dtype=dtype, progress=progress)


def check_folder(folder: Path) -> None:
    """Refuse a folder without a configuration or complete safetensors weights (UnsupportedModelError)."""
    if not (folder / "config.json").is_file():
        raise UnsupportedModelError(f"{folder} holds no config.json, so it is not a model folder.")
    if (folder / "adapter_config.json").is_file():
        raise UnsupportedModelError(f"{folder} holds an adapter; merge it into its base model and save that.")
    if weight_files(folder):
        return
    pickled = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern))
    if pickled:
        raise UnsupportedModelError(
            f"{folder} holds only pickled weights ({', '.join(pickled[:3])}), which can run code when loaded. "
            "Convert them to safetensors, for instance with model.save_pretrained(folder)."
        )
    raise UnsupportedModelError(f"{folder} holds no *.safetensors weights.")


def weight_files(folder: Path) -> Sequence[Path]:
    """The safetensors files of a model folder; of an index, exactly those it names.

    Raises:
        UnsupportedModelError: the index names files that are not there, or cannot be read.
    """
    single = folder / "model.safetensors"
    index = folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(f"{index} cannot be read: {error}") from error
    lost = [name for name in names if not (folder / name).is_file()]
    if lost:
        raise UnsupportedModelError(
            f"{folder} lacks {', '.join(lost)}, which its index names; fetch it again."
        )
    return [folder / name for name in names]


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"device={device!r} is unknown; use auto, cpu, cuda or cuda:0.") from error
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={device!r}: torch sees no CUDA device here; use auto or cpu.")
    return place


def _stored_dtype(folder: Path, place: torch.device) -> torch.dtype:
    """The checkpoint's own dtype; a CPU computes float16 poorly, so there it becomes bfloat16."""
    config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    stored = config.dtype
    if not isinstance(stored, torch.dtype):
        stored = _dtype_of(weight_files(folder)[0])
    return torch.bfloat16 if stored == torch.float16 and place.type == "cpu" else stored


def _dtype_of(file: Path) -> torch.dtype:
    """The dtype of a safetensors file's first floating tensor, from its header alone."""
    known = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    with safe_open(file, framework="pt") as weights:
        spelled = (weights.get_slice(name).get_dtype() for name in weights.keys())  # noqa: SIM118  no mapping
        return next((known[text] for text in spelled if text in known), torch.float32)


def _read(
    folder: Path, dtype: torch.dtype | None, place: torch.device
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of a checked folder; dtype None is the checkpoint's own."""
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        chosen = dtype if dtype is not None else _stored_dtype(folder, place)
        converted = read_note(folder) is not None
        tokenizer = read_tokenizer(folder) if converted else AutoTokenizer.from_pretrained(folder, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=chosen, use_safetensors=True, **options
        )
    except (ValueError, OSError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error)
        if "trust_remote_code" in reason:
            reason = "it needs code of its own, which agentmem never runs."
        raise UnsupportedModelError(f"transformers cannot load {folder}: {reason}") from error
    return model.to(place).eval(), tokenizer
