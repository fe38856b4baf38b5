"""The fields that must match before stored K/V may meet a model again.

Everything that changes a key or a value is in here, and nothing that may change from turn to turn
(window, recall, selector). Knows no files: digests of weights are handed in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

FORMAT = "1"
"""Version of what is stored per token: raw (pre-RoPE) keys and values."""
_VOLATILE = {
    "_name_or_path",
    "_attn_implementation",
    "_attn_implementation_internal",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "pad_token_id",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


def fingerprint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    weights_digest: str,
    template_digest: str,
    rope_facts: Mapping[str, str],
    dtype: torch.dtype,
) -> dict[str, str]:
    """Field -> value or short digest. Equal fingerprints mean that K/V may be shared."""
    return {
        "architecture": type(model).__name__,
        "chat_template": template_digest[:16],
        "config": _digest(_plain_config(model)),
        "format": FORMAT,
        "keys": "raw",
        "kv_dtype": str(dtype).removeprefix("torch."),
        "rope": _digest(dict(rope_facts)),
        "tokenizer": _tokenizer_digest(tokenizer),
        "weights": weights_digest,
    }


def stored_as(fields: Mapping[str, str], form: str) -> dict[str, str]:
    """The fingerprint of a memory whose K/V are not kept as the model makes them, but rounded to ``form``."""
    return {**fields, "kv_dtype": f"{fields['kv_dtype']} as {form}"}


def state_dict_digest(model: PreTrainedModel) -> str:
    """SHA-256 over names and bytes of all weights: for models that did not come from a file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _plain_config(model: PreTrainedModel) -> Any:
    return {key: value for key, value in model.config.to_dict().items() if key not in _VOLATILE}


def _tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
