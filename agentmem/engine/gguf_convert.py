"""Turn a GGUF file into a bf16 safetensors folder in the cache, once.

transformers reads the file; what its reader gets wrong or leaves open (special tokens, BOS, stop ids,
digit splitting, weights it did not find) is set from the file's own metadata or refused. The folder
is complete when it appears. Knows nothing of where the file came from.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from tokenizers import normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import PreTrainedTokenizerFast as FastTokenizer

from agentmem.engine.cache import ModelCache, remove
from agentmem.engine.gguf_facts import GgufFacts, read_facts
from agentmem.engine.gguf_rope import rope_parameters
from agentmem.engine.progress import SILENT, Progress
from agentmem.engine.quiet import quiet
from agentmem.errors import UnsupportedModelError

CONVERSION_VERSION = 1
"""Raised when the same GGUF would give another folder; older folders are then left to `agentmem models rm`."""
NOTE_NAME = "agentmem.json"
"""Says which GGUF the folder was made from. Written last: a folder without it is not complete."""
DIGIT_SPLITTING = frozenset({"smollm", "starcoder", "refact", "command-r"})
"""Byte-level pre-tokenizers that take digits apart first; transformers' GGUF reader does not know them."""
COMPOSING = frozenset({"qwen2"})
"""Pre-tokenizers whose models were trained on NFC text; a GGUF has no field for it."""
PROBES = (
    "Hello  world, it's 12,345.678 o'clock!\n\n1. naïve café 東京 🐕‍🦺\n",
    "  def f(x):\n\t\treturn x ** 2   # three  spaces\r\n",
    "decomposed e\u0301, half\u00a0width ｶﾞ, […]\n\n\n42\n",
    "{control}user\nwhat?{control}\n{control}assistant\n",
)
"""Texts on which the saved tokenizer must equal the original."""


def conversion_key(sha256: str) -> str:
    """The folder name of a conversion, from the GGUF's SHA-256."""
    return f"{sha256[:32]}-v{CONVERSION_VERSION}"


def convert(gguf: Path, sha256: str, cache: ModelCache, *, progress: Progress = SILENT) -> Path:
    """The model folder of a GGUF file, made if it is not there. ``sha256`` is the file's own.

    Raises:
        UnsupportedModelError: transformers cannot read the file, or not all of it.
    """
    key = conversion_key(sha256)
    target = cache.made("converted") / key
    if read_note(target) is not None:
        return target
    with cache.lock(key, progress.note):
        if read_note(target) is not None:
            return target
        cache.sweep("converted", key)
        temporary = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=target.parent))
        try:
            with progress.task(f"Converting {gguf.name} to bf16, once", None):
                _write_folder(gguf, temporary)
            note = {"gguf": gguf.name, "gguf_sha256": sha256, "conversion": CONVERSION_VERSION}
            (temporary / NOTE_NAME).write_text(json.dumps(note, indent=1), "utf-8")
            _sync(temporary)
            remove(target)
            temporary.replace(target)
        finally:
            remove(temporary)
    return target


def read_note(folder: Path) -> dict[str, str] | None:
    """What made a complete conversion: ``gguf``, ``gguf_sha256``, ``conversion``; else None."""
    try:
        note = json.loads((folder / NOTE_NAME).read_text("utf-8"))
        return {key: str(note[key]) for key in ("gguf", "gguf_sha256", "conversion")}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_tokenizer(folder: Path) -> FastTokenizer:
    """The tokenizer of a conversion, exactly as saved: model-specific classes would rebuild parts of it."""
    tokenizer: FastTokenizer = FastTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer


def _write_folder(gguf: Path, folder: Path) -> None:
    facts = read_facts(gguf)
    with quiet(swallow_stderr=True):
        tokenizer = _read_tokenizer(gguf, facts)
        tokenizer.save_pretrained(folder)
        _read_model(gguf, facts).save_pretrained(folder)
        _check_tokenizer(tokenizer, read_tokenizer(folder), facts)


def _read_tokenizer(gguf: Path, facts: GgufFacts) -> FastTokenizer:
    """What transformers reads, with the metadata's special tokens, BOS rule and template."""
    try:
        read = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, local_files_only=True)
    except (ValueError, OSError, KeyError, NotImplementedError) as error:
        raise UnsupportedModelError(
            f"transformers cannot read the tokenizer of {gguf.name}: {error}"
        ) from error
    backend = read.backend_tokenizer
    if facts.pre_tokenizer in DIGIT_SPLITTING:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if facts.pre_tokenizer in COMPOSING:
        backend.normalizer = normalizers.NFC()
    if facts.add_bos is not None and facts.bos is not None:
        text = f"{facts.bos.text} $A" if facts.add_bos else "$A"
        special = [(facts.bos.text, facts.bos.id)]
        backend.post_processor = TemplateProcessing(single=text, special_tokens=special)
    roles = {"bos_token": facts.bos, "eos_token": facts.eos, "pad_token": facts.pad, "unk_token": facts.unk}
    return FastTokenizer(
        tokenizer_object=backend,
        **{role: token.text for role, token in roles.items() if token is not None},
        chat_template=facts.chat_template,
        clean_up_tokenization_spaces=False,
    )


def _read_model(gguf: Path, facts: GgufFacts) -> PreTrainedModel:
    """The dequantised weights in a plain model object, with stop ids that are right."""
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=torch.bfloat16,
            local_files_only=True,
            output_loading_info=True,
        )
    except (ValueError, OSError, KeyError, NotImplementedError, RuntimeError) as error:
        raise UnsupportedModelError(f"transformers cannot read {gguf.name}: {error}") from error
    read, report = loaded
    if report["missing_keys"] or report["mismatched_keys"]:
        lost = sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])])
        raise UnsupportedModelError(
            f"{gguf.name} ({facts.architecture}) lacks {len(lost)} weights the architecture has, "
            f"such as {lost[0]!r}; it would run with random ones. Use a safetensors folder of this model."
        )
    return _plain(read, facts)


def _plain(read: PreTrainedModel, facts: GgufFacts) -> PreTrainedModel:
    """The same weights without the quantisation marks transformers leaves on a GGUF model."""
    config = read.config
    settings = config.to_dict()
    for mark in ("quantization_config", "_model_name_or_path", "_name_or_path"):
        settings.pop(mark, None)
    scaling = rope_parameters(config, facts.rope)
    if scaling is not None:
        settings["rope_parameters"] = scaling
    head: Any = read.get_output_embeddings()
    embedding: Any = read.get_input_embeddings()
    if head is not None and torch.equal(head.weight, embedding.weight):
        settings["tie_word_embeddings"] = True
    ids: dict[str, Any] = {
        "bos_token_id": facts.bos.id if facts.bos is not None else None,
        "eos_token_id": list(facts.end_ids) or None,
        "pad_token_id": facts.pad.id if facts.pad is not None else None,
    }
    with torch.device("meta"):
        plain = type(read)(type(config).from_dict({**settings, **ids}))
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = GenerationConfig(**ids)
    return plain


def _check_tokenizer(before: FastTokenizer, after: PreTrainedTokenizerBase, facts: GgufFacts) -> None:
    """Refuse a tokenizer that did not survive being saved."""
    for probe in PROBES:
        text = probe.replace("{control}", "".join(facts.control_tokens[:64]))
        if before(text)["input_ids"] != after(text)["input_ids"]:
            raise UnsupportedModelError(
                f"the tokenizer of this GGUF ({facts.architecture}) cannot be saved exactly."
            )
    for name in ("bos_token", "eos_token", "pad_token", "chat_template"):
        if getattr(before, name) != getattr(after, name):
            raise UnsupportedModelError(f"the tokenizer's {name} of this GGUF cannot be saved exactly.")


def _sync(folder: Path) -> None:
    """Bring the files to the disk before the folder gets its name."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
