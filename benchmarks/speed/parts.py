"""Names for what happens during a step: which functions and modules a stopwatch is put around, and as which part.

Nothing is left changed afterwards. What is named here and is not there any more is no error: its time then counts
for what called it, and :func:`watched` says so. Knows no clock.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

from agentmem.engine.model import LanguageModel
from benchmarks.speed.shape import is_linear, is_projection, output_projection
from benchmarks.speed.stopwatch import Stopwatch

ATTENTION = "attention"
LINEAR_ATTENTION = "linear layers: q, k, v, o"
LINEAR_MLP = "linear layers: MLP"
VOCABULARY = "vocabulary projection"
SELECTION = "selection: scores and choice"
SELECTION_KEYS = "selection: reading keys"
DIGESTS = "digests"
GATHER = "working set: reading the log"
CHECKSUMS = "checksums of what is read"
ROTATE = "working set: rotating, appending"

_IN_CHOICE = {SELECTION: SELECTION_KEYS, DIGESTS: DIGESTS}
_IN_SELECTION = {SELECTION: SELECTION, DIGESTS: DIGESTS}

FUNCTIONS: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
    ("agentmem.memory.working_memory", "attend", ATTENTION, {}),
    ("agentmem.memory.working_memory", "block_mass", "shares of attention", {}),
    ("agentmem.memory.working_memory", "digest_missing", DIGESTS, {}),
    ("agentmem.memory.working_memory", "WorkingMemory.begin", "planning", {}),
    ("agentmem.memory.working_memory", "WorkingMemory.attend", "Python: working memory", {}),
    ("agentmem.memory.choosing", "Chooser.choose", SELECTION, {}),
    ("agentmem.memory.choosing", "Chooser.hear", SELECTION, {}),
    ("agentmem.memory.rotation", "RotaryTable.rotate", ROTATE, _IN_SELECTION),
    ("agentmem.memory.buffers", "LayerBuffer.extend", ROTATE, {}),
    ("agentmem.memory.buffers", "LayerBuffer.rotate_queries", ROTATE, {}),
    ("agentmem.memory.buffers", "Staging.put", "staging", {}),
    ("agentmem.memory.masks", "Masks.visible", "masks", {}),
    ("agentmem.memory.loading", "Loader.span", GATHER, {}),
    ("agentmem.memory.loading", "Loader.chosen", GATHER, {}),
    ("agentmem.store.log", "DiskTokenLog.read", GATHER, _IN_CHOICE),
    ("agentmem.store.log", "DiskTokenLog.gather", GATHER, _IN_CHOICE),
    ("agentmem.store.log", "DiskTokenLog.append", "store: writing", {}),
    ("agentmem.store.pages", "PageTable.check_cells", CHECKSUMS, {}),
    ("agentmem.store.pages", "PageTable.check_slots", CHECKSUMS, {}),
    ("agentmem.store.disk", "DiskStore.commit", "store: commit", {}),
    ("agentmem.engine.sampling", "Sampler.next", "sampling", {}),
    ("agentmem.engine.text_stream", "TextStream.push", "text of the reply", {}),
    ("agentmem.engine.attention", "attend_through_context", "Python: attention module", {}),
    ("agentmem.engine.binding", "Binding.forward", "Python: around the layers", {}),
)
"""Module, name in it, part, and the part's other name inside other parts."""


@contextmanager
def watched(model: LanguageModel, watch: Stopwatch) -> Iterator[list[str]]:
    """Put the stopwatch around everything that has a name; gives what was not found. Laps end with each step."""
    missing: list[str] = []
    with ExitStack() as undo:
        for place, path, part, within in FUNCTIONS:
            wrap = _wrapper(watch, part, within)
            if not _replace(undo, place, path, wrap):
                missing.append(f"{place}.{path}")
        _watch_modules(undo, model, watch)
        undo.enter_context(laps(watch))
        yield missing


@contextmanager
def laps(watch: Stopwatch) -> Iterator[None]:
    """End a lap after each forward pass; nothing else is timed, but selections are counted."""

    def then_lap(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **keywords: Any) -> Any:
            answer = function(*args, **keywords)
            watch.lap()
            return answer

        return run

    with ExitStack() as undo:
        place = "agentmem.memory.working_memory"
        if not _replace(undo, place, "WorkingMemory.end", then_lap):
            raise RuntimeError(f"{place}.WorkingMemory.end is gone; say in {__name__} where a step ends now")
        yield


@contextmanager
def selections(watch: Stopwatch) -> Iterator[None]:
    """Count selections alone, to tell steps that renew the working set from those that hold it."""
    with ExitStack() as undo:
        _replace(undo, "agentmem.memory.choosing", "Chooser.choose", _wrapper(watch, SELECTION, {}))
        yield


def _wrapper(
    watch: Stopwatch, part: str, within: Mapping[str, str]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return lambda function: watch.timed(part, function, within)


def _replace(
    undo: ExitStack, place: str, path: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> bool:
    """Put ``wrap(function)`` in a function's place until ``undo`` is closed; False when it is not there."""
    owner: Any = importlib.import_module(place)
    *classes, name = path.split(".")
    for step in classes:
        owner = getattr(owner, step, None)
    found = vars(owner).get(name) if owner is not None else None
    if found is None:
        return False
    setattr(owner, name, wrap(found))
    undo.callback(setattr, owner, name, found)
    return True


def _watch_modules(undo: ExitStack, model: LanguageModel, watch: Stopwatch) -> None:
    network: Any = model.binding.model
    head = output_projection(network)
    for name, module in network.named_modules():
        part = VOCABULARY if module is head else _part(name, module)
        if part is not None:
            own = vars(module).get("forward")
            module.forward = watch.timed(part, module.forward)
            if own is None:
                undo.callback(delattr, module, "forward")
            else:
                undo.callback(setattr, module, "forward", own)


def _part(name: str, module: nn.Module) -> str | None:
    """The part that a module of any architecture belongs to; None: its time is its caller's."""
    kind, leaf = type(module).__name__, name.rpartition(".")[2]
    if is_linear(module):
        return LINEAR_ATTENTION if is_projection(name) else LINEAR_MLP
    if isinstance(module, nn.Embedding):
        return "embedding"
    if "Norm" in kind:
        return "norms"
    if "Rotary" in kind:
        return "Python: around the layers"
    if leaf == "mlp" or (not list(module.children()) and not list(module.parameters())):
        return "activations"
    if "Attention" in kind:
        return "Python: attention module"
    if kind.endswith("Layer"):
        return "residual sums, Python of a layer"
    return None
