"""A tiny random Llama in a GGUF file, written with the gguf package: byte-level vocabulary, ChatML template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from transformers.convert_slow_tokenizer import bytes_to_unicode

WIDTH, HEADS, KV_HEADS, FEED, LAYERS = 32, 2, 1, 64, 2
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MERGES = ("Ċ Ċ", "Ġ Ġ", "h e", "l l")


def vocabulary() -> list[str]:
    """Special tokens, the byte alphabet, and what the merges make."""
    alphabet = list(bytes_to_unicode().values())
    return [*SPECIAL, *alphabet, *(merge.replace(" ", "") for merge in MERGES)]


@dataclass(frozen=True)
class TinyGguf:
    """What to write. ``head``: None leaves the output matrix out; "same" repeats the embedding."""

    head: str | None = None
    pre: str = "smollm"
    add_bos: bool | None = False
    rope: Mapping[str, Any] = field(default_factory=dict)
    rope_freqs: Sequence[float] | None = None
    leave_out: Sequence[str] = ()
    seed: int = 0

    def write(self, path: Path) -> Path:
        """Write the file; returns its path."""
        writer = gguf.GGUFWriter(path, "llama")
        self._write_header(writer)
        for name, data in self._tensors().items():
            if name not in self.leave_out:
                _add(writer, name, data)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    def _write_header(self, writer: gguf.GGUFWriter) -> None:
        tokens = vocabulary()
        writer.add_name("tiny")
        writer.add_block_count(LAYERS)
        writer.add_context_length(256)
        writer.add_embedding_length(WIDTH)
        writer.add_feed_forward_length(FEED)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_rope_freq_base(10_000.0)
        writer.add_rope_dimension_count(WIDTH // HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_vocab_size(len(tokens))
        for key, value in self.rope.items():
            add = writer.add_string if isinstance(value, str) else writer.add_float32
            add(f"llama.rope.scaling.{key}", value)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
        writer.add_token_merges(MERGES)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_pad_token_id(2)
        writer.add_chat_template(TEMPLATE)
        if self.add_bos is not None:
            writer.add_add_bos_token(self.add_bos)

    def _tensors(self) -> dict[str, np.ndarray]:
        random = np.random.default_rng(self.seed)

        def weights(*shape: int) -> np.ndarray:
            return (random.standard_normal(shape) * 0.3).astype(np.float32)

        size, kv = len(vocabulary()), KV_HEADS * WIDTH // HEADS
        tensors = {"token_embd.weight": weights(size, WIDTH), "output_norm.weight": 1 + weights(WIDTH)}
        if self.head is not None:
            tensors["output.weight"] = (
                tensors["token_embd.weight"] if self.head == "same" else weights(size, WIDTH)
            )
        if self.rope_freqs is not None:
            tensors["rope_freqs.weight"] = np.asarray(self.rope_freqs, dtype=np.float32)
        shapes = {
            "attn_q": (WIDTH, WIDTH),
            "attn_k": (kv, WIDTH),
            "attn_v": (kv, WIDTH),
            "attn_output": (WIDTH, WIDTH),
            "ffn_gate": (FEED, WIDTH),
            "ffn_up": (FEED, WIDTH),
            "ffn_down": (WIDTH, FEED),
        }
        for layer in range(LAYERS):
            for name, shape in shapes.items():
                tensors[f"blk.{layer}.{name}.weight"] = weights(*shape)
            for name in ("attn_norm", "ffn_norm"):
                tensors[f"blk.{layer}.{name}.weight"] = 1 + weights(WIDTH)
        return tensors


def _add(writer: gguf.GGUFWriter, name: str, data: np.ndarray) -> None:
    """Feed-forward matrices are quantised as in real files, the rest is float32."""
    if "ffn_" in name and data.ndim == 2:
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(data, kind), raw_dtype=kind)
    else:
        writer.add_tensor(name, data)
