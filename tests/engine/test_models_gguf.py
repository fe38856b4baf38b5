"""GGUF conversion: the same logits, the right special tokens, nothing dropped quietly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from agentmem.engine.cache import ModelCache
from agentmem.engine.gguf_convert import conversion_key, read_note
from agentmem.engine.gguf_facts import read_facts
from agentmem.engine.gguf_rope import LLAMA3
from agentmem.engine.loading import LoadedModel, ModelLoader, resolve
from agentmem.errors import UnsupportedModelError
from support.tiny_gguf import HEADS, TEMPLATE, WIDTH, TinyGguf

TEXT = "Hello  world,\n\n42 times — <|im_start|>user\nhi<|im_end|>"


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    """An empty cache."""
    return ModelCache(tmp_path / "cache")


def load(path: Path, cache: ModelCache) -> LoadedModel:
    """Load through conversion, on the CPU."""
    return ModelLoader(cache).load(resolve(path), device="cpu")


def stored(model: LoadedModel) -> set[str]:
    """Names of the tensors in the conversion."""
    with safe_open(model.folder / "model.safetensors", framework="pt") as weights:
        return set(weights.keys())


@pytest.mark.parametrize("head", [None, "other"])
def test_logits_equal_the_direct_load(tmp_path: Path, cache: ModelCache, head: str | None) -> None:
    """A converted model computes exactly what transformers computes from the GGUF itself."""
    path = TinyGguf(head=head).write(tmp_path / "tiny.gguf")
    direct = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.bfloat16)
    loaded = load(path, cache)
    ids = torch.randint(0, 250, (1, 40), generator=torch.Generator().manual_seed(1))

    with torch.no_grad():
        assert torch.equal(direct(ids).logits, loaded.model(ids).logits)
    assert loaded.model.dtype == torch.bfloat16
    assert ("lm_head.weight" in stored(loaded)) == (head is not None)


def test_equal_embeddings_are_stored_once(tmp_path: Path, cache: ModelCache) -> None:
    """An output matrix that repeats the embedding is tied, not stored a second time."""
    loaded = load(TinyGguf(head="same").write(tmp_path / "tiny.gguf"), cache)

    assert "lm_head.weight" not in stored(loaded)
    assert loaded.model.config.tie_word_embeddings is True


def test_special_tokens_are_the_files(tmp_path: Path, cache: ModelCache) -> None:
    """EOS, BOS, padding, template and stop ids come from the file's header, after saving and loading."""
    loaded = load(TinyGguf().write(tmp_path / "tiny.gguf"), cache)
    tokenizer, generation = loaded.tokenizer, loaded.model.generation_config

    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.chat_template == TEMPLATE
    assert generation.eos_token_id == [2, 0]
    assert (generation.bos_token_id, generation.pad_token_id) == (1, 2)


@pytest.mark.parametrize(("add_bos", "first"), [(False, []), (None, []), (True, [1])])
def test_bos_is_added_only_as_the_file_says(
    tmp_path: Path, cache: ModelCache, add_bos: bool | None, first: list[int]
) -> None:
    """A text gets a BOS when the header asks for one, and never twice or uninvited."""
    tokenizer = load(TinyGguf(add_bos=add_bos).write(tmp_path / "tiny.gguf"), cache).tokenizer
    plain = tokenizer(TEXT, add_special_tokens=False)["input_ids"]

    assert tokenizer(TEXT)["input_ids"] == first + plain
    assert tokenizer.decode(plain) == TEXT


def test_token_ids_equal_the_direct_tokenizer(tmp_path: Path, cache: ModelCache) -> None:
    """For a pre-tokenizer transformers knows, ids are those of its own GGUF tokenizer."""
    path = TinyGguf(pre="llama-bpe").write(tmp_path / "tiny.gguf")
    direct = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)

    assert load(path, cache).tokenizer(TEXT)["input_ids"] == direct(TEXT)["input_ids"]


def test_digits_are_taken_apart_first(tmp_path: Path, cache: ModelCache) -> None:
    """For smollm's rule a double line break before a digit stays one token, as the model was trained."""
    tokenizer = load(TinyGguf(pre="smollm").write(tmp_path / "tiny.gguf"), cache).tokenizer

    assert tokenizer.tokenize("a\n\n12  3") == ["a", "ĊĊ", "1", "2", "ĠĠ", "3"]


def test_qwen_text_is_composed(tmp_path: Path, cache: ModelCache) -> None:
    """For qwen2's rule text is brought to NFC, as that family's own tokenizer does."""
    tokenizer = load(TinyGguf(pre="qwen2").write(tmp_path / "tiny.gguf"), cache).tokenizer

    assert tokenizer("e\u0301")["input_ids"] == tokenizer("\u00e9")["input_ids"]


def test_a_second_load_converts_nothing(tmp_path: Path, cache: ModelCache) -> None:
    """The conversion is kept and used as it is; its digest names the GGUF, not the path."""
    first = load(TinyGguf().write(tmp_path / "tiny.gguf"), cache)
    before = (first.folder / "model.safetensors").stat().st_mtime_ns
    moved = (tmp_path / "tiny.gguf").rename(tmp_path / "moved.gguf")
    second = load(moved, cache)

    assert second.folder == first.folder
    assert (second.folder / "model.safetensors").stat().st_mtime_ns == before
    assert second.weights_digest == first.weights_digest
    assert second.weights_digest.startswith("gguf-sha256:")


def test_other_weights_have_another_digest(tmp_path: Path, cache: ModelCache) -> None:
    """Two files that differ in one weight are two models."""
    digests = {load(TinyGguf(seed=n).write(tmp_path / f"{n}.gguf"), cache).weights_digest for n in (1, 2)}

    assert len(digests) == 2


def test_missing_weights_are_refused(tmp_path: Path, cache: ModelCache) -> None:
    """A file that lacks a matrix is refused by its name; transformers alone would fill in random numbers."""
    path = TinyGguf(leave_out=["blk.1.ffn_up.weight"]).write(tmp_path / "tiny.gguf")

    with pytest.raises(UnsupportedModelError, match="up_proj"):
        load(path, cache)
    assert list(cache.made("converted").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(200), b"\0" * 64])
def test_what_is_no_gguf_is_refused(tmp_path: Path, cache: ModelCache, content: bytes) -> None:
    """A file that only bears the name is a typed error and leaves nothing behind."""
    path = tmp_path / "broken.gguf"
    path.write_bytes(content)

    with pytest.raises(UnsupportedModelError, match=r"broken\.gguf"):
        load(path, cache)
    assert list(cache.made("converted").iterdir()) == []


def test_an_unfinished_conversion_does_not_count(tmp_path: Path, cache: ModelCache) -> None:
    """A folder without its note, and what a killed conversion left, are replaced by a whole one."""
    path = TinyGguf().write(tmp_path / "tiny.gguf")
    first = load(path, cache)
    (first.folder / "agentmem.json").unlink()
    (first.folder / "model.safetensors").write_bytes(b"half")
    (cache.made("converted") / f".{first.folder.name}.left").mkdir()
    again = load(path, cache)

    assert read_note(again.folder) is not None
    assert [folder.name for folder in cache.made("converted").iterdir()] == [again.folder.name]


def test_yarn_scaling_is_carried_over(tmp_path: Path, cache: ModelCache) -> None:
    """A file's YaRN settings reach the configuration, which transformers' own reader drops."""
    rope = {"type": "yarn", "factor": 4.0, "original_context_length": 64.0}
    config = load(TinyGguf(rope=rope).write(tmp_path / "tiny.gguf"), cache).model.config

    assert config.rope_parameters["rope_type"] == "yarn"
    assert config.rope_parameters["factor"] == 4.0
    assert config.rope_parameters["original_max_position_embeddings"] == 64
    assert config.rope_parameters["rope_theta"] == 10_000.0


def _llama3_factors(cache: ModelCache, path: Path, factor: float) -> list[float]:
    """What llama.cpp's converter would store for these settings."""
    config = load(path, cache).model.config
    dim = WIDTH // HEADS
    plain = 1.0 / (10_000.0 ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim))
    config.rope_parameters = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": factor, **LLAMA3}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    return list((plain / scaled).tolist())


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_found_again(tmp_path: Path, cache: ModelCache, factor: float) -> None:
    """From the frequency factors of a Llama 3 file the settings are recovered exactly."""
    factors = _llama3_factors(cache, TinyGguf().write(tmp_path / "plain.gguf"), factor)
    config = load(TinyGguf(rope_freqs=factors).write(tmp_path / "tiny.gguf"), cache).model.config

    assert config.rope_parameters["rope_type"] == "llama3"
    assert config.rope_parameters["factor"] == factor


@pytest.mark.parametrize(
    "file",
    [
        TinyGguf(rope_freqs=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        TinyGguf(rope={"type": "longrope", "factor": 4.0}),
        TinyGguf(rope={"type": "yarn", "factor": 4.0, "original_context_length": 64.0, "attn_factor": 2.0}),
    ],
    ids=["unknown factors", "longrope", "yarn with more"],
)
def test_scaling_that_cannot_be_carried_is_refused(tmp_path: Path, cache: ModelCache, file: TinyGguf) -> None:
    """Positions scaled in a way the configuration cannot say are an error, not a slightly wrong model."""
    with pytest.raises(UnsupportedModelError, match="scales its positions"):
        load(file.write(tmp_path / "tiny.gguf"), cache)


def test_the_key_changes_with_the_file(tmp_path: Path) -> None:
    """Conversions are named by the GGUF's hash."""
    assert conversion_key("a" * 64) != conversion_key("b" * 64)
    assert read_facts(TinyGguf().write(tmp_path / "tiny.gguf")).end_ids == (2, 0)
