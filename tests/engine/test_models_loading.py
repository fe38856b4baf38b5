"""Names and folders: what resolves, what is refused, dtypes, digests, silence."""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

from agentmem.engine.cache import ModelCache, default_cache
from agentmem.engine.catalog import CATALOG, CatalogEntry, WheelPart
from agentmem.engine.fetch import Fetcher
from agentmem.engine.gguf_convert import read_tokenizer
from agentmem.engine.loading import ModelLoader, ResolvedModel, resolve
from agentmem.engine.models import list_models, pull, remove_model
from agentmem.engine.progress import Advance
from agentmem.engine.quiet import quiet
from agentmem.engine.weights_digest import FileDigests
from agentmem.errors import (
    ConfigError,
    DownloadError,
    HashMismatchError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from support.tiny_gguf import TinyGguf
from support.tiny_models import build


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    """An empty cache."""
    return ModelCache(tmp_path / "cache")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """A small tokenizer to lay beside models."""
    place = tmp_path_factory.mktemp("tokenizer")
    path = TinyGguf().write(place / "tiny.gguf")
    return read_tokenizer(ModelLoader(ModelCache(place / "cache")).bring(resolve(path)))


def folder_of(place: Path, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype, **options: object) -> Path:
    """A model folder of that dtype."""
    build("llama").to(dtype).save_pretrained(place, **options)
    tokenizer.save_pretrained(place)
    return place


def test_a_built_in_name_resolves() -> None:
    """A built-in's name means its pinned entry."""
    found = resolve("smollm2-135m")

    assert (found.name, found.kind, found.entry) == ("smollm2-135m", "built-in", CATALOG["smollm2-135m"])


def test_paths_resolve_to_absolute_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative folder or GGUF path is stored as an absolute one, so that it is found from elsewhere."""
    (tmp_path / "model").mkdir()
    (tmp_path / "tiny.GGUF").touch()
    monkeypatch.chdir(tmp_path)

    assert (resolve("model").kind, resolve("model").name) == ("folder", str(tmp_path / "model"))
    assert (resolve("./tiny.GGUF").kind, resolve(Path("tiny.GGUF")).name) == (
        "gguf",
        str(tmp_path / "tiny.GGUF"),
    )


def test_an_id_resolves_to_the_hub() -> None:
    """A text of the form org/name that is no path is a Hugging Face id."""
    found = resolve("HuggingFaceTB/SmolLM2-135M-Instruct")

    assert (found.kind, found.path) == ("hub", None)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt-17",
        "a/b/c",
        "./no/folder",
        "~/nothing",
        "org/x.gguf",
        "a" * 5000,
        "~nobody-here/x",
        "a\0b",
        Path("org/name"),
    ],
)
def test_unknown_names_list_what_would_do(name: str | Path) -> None:
    """A name that means nothing is an error listing the built-ins and the accepted forms."""
    with pytest.raises(ModelNotFoundError, match=r"qwen2\.5-coder-0\.5b, smollm2-135m; a folder"):
        resolve(name)


def test_another_file_is_refused(tmp_path: Path) -> None:
    """A file that is not a .gguf is named as such."""
    (tmp_path / "weights.bin").touch()

    with pytest.raises(ModelNotFoundError, match=r"is a file, but not a \.gguf one"):
        resolve(tmp_path / "weights.bin")


@pytest.mark.parametrize(
    ("stored", "asked", "expected"),
    [
        (torch.float32, "auto", torch.float32),
        (torch.bfloat16, "auto", torch.bfloat16),
        (torch.float16, "auto", torch.bfloat16),
        (torch.bfloat16, "float32", torch.float32),
        (torch.float32, "bfloat16", torch.bfloat16),
    ],
)
def test_dtypes(
    tmp_path: Path,
    cache: ModelCache,
    tokenizer: PreTrainedTokenizerFast,
    stored: torch.dtype,
    asked: str,
    expected: torch.dtype,
) -> None:
    """ "auto" is the checkpoint's own dtype, float16 being bfloat16 on the CPU; a named one is obeyed."""
    place = folder_of(tmp_path / "model", tokenizer, stored)
    loaded = ModelLoader(cache).load(resolve(place), device="cpu", dtype=asked)

    assert {parameter.dtype for parameter in loaded.model.parameters()} == {expected}
    assert not loaded.model.training


def test_the_weights_decide_where_the_config_is_silent(
    tmp_path: Path, cache: ModelCache, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Without a dtype in config.json, "auto" reads it from the weights' header."""
    place = folder_of(tmp_path / "model", tokenizer, torch.bfloat16)
    config = (place / "config.json").read_text("utf-8")
    (place / "config.json").write_text(config.replace('  "dtype": "bfloat16",\n', ""), "utf-8")

    assert '"dtype"' not in (place / "config.json").read_text("utf-8")
    assert ModelLoader(cache).load(resolve(place), device="cpu").model.dtype == torch.bfloat16


@pytest.mark.parametrize("options", [{"device": "tpu9"}, {"dtype": "int3"}, {"dtype": "float16"}])
def test_unknown_options_are_refused(tmp_path: Path, cache: ModelCache, options: dict[str, str]) -> None:
    """An unknown device or dtype is a ConfigError, before anything is brought or loaded."""
    with pytest.raises(ConfigError, match=r"device='tpu9'|dtype='(int3|float16)'"):
        ModelLoader(cache).load(ResolvedModel("nowhere", "folder", path=tmp_path), **options)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth"])
def test_pickled_weights_are_refused(tmp_path: Path, cache: ModelCache, name: str) -> None:
    """A folder with only pickled weights is refused, with the way to convert them."""
    build("llama").config.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'touch evil'\ntR.")

    with pytest.raises(UnsupportedModelError, match=rf"only pickled weights \({name}\).*safetensors"):
        ModelLoader(cache).load(resolve(tmp_path))


def test_incomplete_folders_are_refused(tmp_path: Path, cache: ModelCache) -> None:
    """No config, no weights, an adapter, or a missing shard: each is a typed error that says which."""
    loader = ModelLoader(cache)
    with pytest.raises(UnsupportedModelError, match=r"no config\.json"):
        loader.load(resolve(tmp_path))
    build("llama").config.save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"no \*\.safetensors"):
        loader.load(resolve(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(UnsupportedModelError, match=r"lacks model-1\.safetensors"):
        loader.load(resolve(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text("{")
    with pytest.raises(UnsupportedModelError, match=r"index\.json cannot be read"):
        loader.load(resolve(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="adapter"):
        loader.load(resolve(tmp_path))


def test_code_from_a_folder_is_not_run(
    tmp_path: Path, cache: ModelCache, tokenizer: PreTrainedTokenizerFast
) -> None:
    """A model type that only the folder's own code defines is refused, and the code stays unrun."""
    place = folder_of(tmp_path / "model", tokenizer, torch.float32)
    config = (place / "config.json").read_text("utf-8").replace('"llama"', '"evil"')
    auto = '{"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.EvilModel"},'
    (place / "config.json").write_text(config.replace("{", auto, 1), "utf-8")
    (place / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")

    with pytest.raises(UnsupportedModelError, match="code of its own, which agentmem never runs"):
        ModelLoader(cache).load(resolve(place), device="cpu")
    assert not (tmp_path / "ran").exists()


def test_damaged_weights_are_refused(
    tmp_path: Path, cache: ModelCache, tokenizer: PreTrainedTokenizerFast
) -> None:
    """A truncated weights file is a typed error."""
    place = folder_of(tmp_path / "model", tokenizer, torch.float32)
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(UnsupportedModelError, match="transformers cannot load"):
        ModelLoader(cache).load(resolve(place), device="cpu")


def test_sharded_folders_load(tmp_path: Path, cache: ModelCache, tokenizer: PreTrainedTokenizerFast) -> None:
    """Weights in several files load, and all of them are in the digest."""
    place = folder_of(tmp_path / "model", tokenizer, torch.float32, max_shard_size="100KB")
    shards = sorted(place.glob("model-*.safetensors"))
    assert len(shards) > 1
    before = ModelLoader(cache).load(resolve(place), device="cpu").weights_digest
    data = bytearray(shards[-1].read_bytes())
    data[-1] ^= 1
    shards[-1].write_bytes(data)

    assert before.startswith("xxh3-128:")
    assert ModelLoader(cache).load(resolve(place), device="cpu").weights_digest != before


def test_loading_is_silent(
    tmp_path: Path, cache: ModelCache, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """Converting and loading write nothing to the terminal and raise no warnings."""
    path = TinyGguf().write(tmp_path / "tiny.gguf")
    capfd.readouterr()
    ModelLoader(cache).load(resolve(path), device="cpu")
    ModelLoader(cache).load(resolve(path), device="cpu")

    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


def _fail_quietly() -> None:
    assert not logging.is_progress_bar_enabled()
    raise KeyError


def test_quiet_restores_what_it_changed() -> None:
    """transformers' log level and bars are as before afterwards, after an error too."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_info()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite's own environment switches the hub's bars off
        logging.enable_progress_bar()
    try:
        with pytest.raises(KeyError), quiet():
            _fail_quietly()
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(verbosity)
        if not bars:
            logging.disable_progress_bar()


def test_digests_are_remembered_while_the_file_is_the_same(tmp_path: Path, cache: ModelCache) -> None:
    """An unchanged file is not read again; a changed modification time or inode makes it read anew."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"one")
    digests, stat = FileDigests(cache), path.stat()
    first = digests.xxh3(path)
    with path.open("r+b") as file:
        file.write(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    remembered = FileDigests(cache).xxh3(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))

    assert remembered == first
    assert FileDigests(cache).xxh3(path) != first
    assert digests.sha256(path) == hashlib.sha256(b"two").hexdigest()


def test_damaged_notes_of_digests_are_ignored(tmp_path: Path, cache: ModelCache) -> None:
    """What the digest cache lost or garbled is computed again."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"one")
    first = FileDigests(cache).sha256(path)
    for note in cache.made("digests").iterdir():
        note.write_text("[1, 2")

    assert FileDigests(cache).sha256(path) == first


def test_the_cache_can_be_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AGENTMEM_CACHE moves the cache; without it the platform's folder is used."""
    monkeypatch.setenv("AGENTMEM_CACHE", str(tmp_path))
    assert default_cache().root == tmp_path
    monkeypatch.delenv("AGENTMEM_CACHE")
    assert default_cache().root.name == "agentmem"


def _entry(tmp_path: Path, parts: tuple[WheelPart, ...] = ()) -> CatalogEntry:
    """A tiny GGUF as a catalog entry that no source has."""
    data = TinyGguf().write(tmp_path / "tiny.gguf").read_bytes()
    return CatalogEntry("tiny", "MIT", "tiny.gguf", len(data), hashlib.sha256(data).hexdigest(), None, parts)


def test_a_converted_built_in_needs_no_file(tmp_path: Path, cache: ModelCache) -> None:
    """Once converted, a pinned model loads though its download is gone and no source answers."""
    entry = _entry(tmp_path)
    resolved = ResolvedModel("tiny", "built-in", entry=entry)
    (tmp_path / "tiny.gguf").rename(cache.made("files") / "tiny.gguf")
    first = ModelLoader(cache).load(resolved, device="cpu")
    (cache.part("files") / "tiny.gguf").unlink()
    again = ModelLoader(cache, fetcher=Fetcher(cache)).load(resolved, device="cpu")

    assert again.folder == first.folder
    assert again.name == "tiny"


def test_an_absent_built_in_is_a_download_error(tmp_path: Path, cache: ModelCache) -> None:
    """Without any source the error is typed and the cache stays empty of models."""
    with pytest.raises(DownloadError, match="no source could deliver tiny"):
        ModelLoader(cache).load(ResolvedModel("tiny", "built-in", entry=_entry(tmp_path)), device="cpu")
    assert not cache.part("converted").exists()


def test_a_cache_that_cannot_be_written_is_a_typed_error(tmp_path: Path) -> None:
    """When the cache's place is taken by a file, the error names it and the way out."""
    path = TinyGguf().write(tmp_path / "tiny.gguf")
    (tmp_path / "taken").touch()

    with pytest.raises(DownloadError, match=r"taken.*AGENTMEM_CACHE"):
        ModelLoader(ModelCache(tmp_path / "taken")).load(resolve(path), device="cpu")


def test_models_are_listed_pulled_and_removed(tmp_path: Path, cache: ModelCache) -> None:
    """The list shows built-ins and own conversions with their bytes; removing one frees them."""
    names = [model.name for model in list_models(cache)]
    assert names == list(CATALOG)
    assert all((model.bytes_used, model.ready) == (0, False) for model in list_models(cache))
    folder = pull(str(TinyGguf().write(tmp_path / "tiny.gguf")), cache=cache)
    own = list_models(cache)[-1]

    assert (own.name, own.ready, own.licence) == ("tiny.gguf", True, "unknown")
    assert own.bytes_used == sum(path.stat().st_size for path in folder.iterdir())
    assert remove_model("tiny.gguf", cache=cache) == own.bytes_used
    assert not folder.exists()
    assert (tmp_path / "tiny.gguf").exists()


def test_removing_what_is_not_there_says_what_is(cache: ModelCache) -> None:
    """Removing an absent model, or an unknown one, is an error and removes nothing."""
    for name in ("smollm2-135m", "nothing"):
        with pytest.raises(ModelNotFoundError, match="what is there: nothing"):
            remove_model(name, cache=cache)


def test_a_partly_present_built_in_can_be_removed(cache: ModelCache) -> None:
    """A download without its conversion is counted, is not ready, and can be removed."""
    entry = CATALOG["smollm2-135m"]
    (cache.made("files") / entry.file_name).write_bytes(b"x" * 10)
    listed = next(model for model in list_models(cache) if model.name == entry.name)

    assert (listed.bytes_used, listed.ready) == (10, False)
    assert remove_model(entry.name, cache=cache) == 10


def test_a_forged_download_is_not_converted(cache: ModelCache) -> None:
    """A file planted in the cache under a built-in's name is removed, not loaded."""
    entry = CATALOG["smollm2-135m"]
    planted = cache.made("files") / entry.file_name
    planted.write_bytes(b"x" * 10)

    def nothing(requirement: str, folder: Path, arrived: Advance) -> None:
        raise DownloadError("no index here")

    with pytest.raises((DownloadError, HashMismatchError), match="no index here"):
        Fetcher(cache, download=nothing).fetch(entry)
    assert not planted.exists()
