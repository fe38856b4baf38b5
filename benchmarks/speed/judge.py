"""The promises about speed, each judged by the cells of one run. Measures nothing and prints nothing.

Every ratio is taken within a round, since what is measured together shares the machine's mood; then medians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.speed.cells import View, middle
from benchmarks.speed.integral import seconds_to_read
from benchmarks.speed.plan import FLOORS_DECODE, FLOORS_READ, LLAMA, MILLION, TRANSFORMERS, Sizes
from benchmarks.speed.rpc import Figures

MEMORY_MIB = 300e6 / (1 << 20)
RESUME_MS = 30.0
PAGE_CACHE = {"warm": "", "cold page cache": "cold_"}
"""How a figure's name begins for each."""

OfRound = Callable[[int], float | None]
Figure = Callable[[str, int, int], float | None]
"""(side, length, round) -> a value, if it was measured."""


@dataclass(frozen=True)
class Verdict:
    """One promise: the rounds' values, and what their median is held against."""

    what: str
    values: tuple[float, ...]
    limit: float
    at_least: bool
    note: str = ""

    @property
    def value(self) -> float | None:
        """The median of the rounds."""
        return middle(self.values)

    @property
    def met(self) -> bool | None:
        """None: it could not be judged."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True)
class Judge:
    """Judges one side of ours. ``info``: the side's own numbers, see ``OurSide.info``."""

    view: View
    side: str
    sizes: Sizes
    info: Mapping[str, Any]

    def verdicts(self) -> Iterator[Verdict]:
        """All promises, in their order."""
        yield from self._ingest()
        yield from self._decode()
        yield from self._limits()
        yield from self._resume()
        yield from self._rest()

    # -- groups ---------------------------------------------------------------------------------------

    def _ingest(self) -> Iterator[Verdict]:
        whole = self.sizes.tokens(2)
        ratio = self._beside(self.reading_whole, TRANSFORMERS, whole)
        yield self._least(f"reading {whole:,} tokens / transformers", ratio, 1.0, "read whole, both")
        for n, peer, limit in ((16, TRANSFORMERS, 2.0), (32, TRANSFORMERS, 4.0), (16, LLAMA, 3.0)):
            length = self.sizes.tokens(n)
            ratio = self._beside(self.reading, peer, length)
            yield self._least(
                f"reading {length:,} tokens / {peer.split()[0]}", ratio, limit, "integrated over chunks"
            )
        far, near = self.sizes.tokens(128), self.sizes.tokens(8)
        yield self._least(f"reading at {far:,} / at {near:,}", self._flat(self.reading_chunk, far, near), 0.9)

    def _decode(self) -> Iterator[Verdict]:
        for n, peer, limit in (
            (4, TRANSFORMERS, 2.0),
            (32, TRANSFORMERS, 6.0),
            (16, LLAMA, 1.0),
            (32, LLAMA, 2.0),
        ):
            length = self.sizes.tokens(n)
            ratio = self._beside(self.decoding, peer, length)
            yield self._least(f"decoding at {length:,} / {peer.split()[0]}", ratio, limit)
        near = self.sizes.tokens(4)
        for n, limit in ((128, 0.95), (MILLION, 0.85)):
            far = self.sizes.tokens(n)
            yield self._least(
                f"decoding at {far:,} / at {near:,}", self._flat(self.decoding, far, near), limit
            )

    def _limits(self) -> Iterator[Verdict]:
        near, deep = self.sizes.tokens(FLOORS_DECODE), self.sizes.tokens(FLOORS_READ)
        yield self._least(
            f"decoding at {near:,}: share of the bandwidth floor of the weights as stored",
            lambda run: self._bandwidth_share(near, run),
            0.5,
        )
        yield self._least(
            f"reading at {deep:,}: share of the measured matmul rate",
            lambda run: self._matmul_share(deep, run),
            0.6,
            "operations of attention included",
        )

    def _resume(self) -> Iterator[Verdict]:
        deep, short = self.sizes.tokens(64), self.sizes.tokens(16)
        for words, cold in PAGE_CACHE.items():
            first = self._figure("resume", deep, f"{cold}first_ms")
            load = self._figure("state", short, f"{cold}load_ms", LLAMA)
            opened = f"resume to first token at {deep:,}, {words}"
            note = "reading again at agentmem's own speed"
            yield self._most(
                f"{opened} / reading it again",
                _over(first, lambda run: self._again(deep, run)),
                1 / 500,
                note,
            )
            yield self._most(f"{opened} / llama.cpp's load at {short:,}", _over(first, load), 1 / 10)
        for length in self.view.lengths(self.side, "resume"):
            for words, cold in PAGE_CACHE.items():
                alone = self._figure("resume", length, f"{cold}resume_ms")
                yield self._most(f"resume alone at {length:,}, {words}, ms", alone, RESUME_MS)

    def _rest(self) -> Iterator[Verdict]:
        at, four = self.sizes.tokens(16), self.sizes.tokens(4)
        share = _over(self._figure("turn", at, "checkpoint_ms"), self._figure("turn", at, "turn_ms"))
        yield self._most(f"checkpoint at {at:,} / turn", share, 0.03)
        written = _over(self._figure("turn", at, "written_bytes"), self._figure("turn", at, "kv_bytes"))
        device = self._rounds(
            _over(self._figure("turn", at, "device_bytes"), self._figure("turn", at, "kv_bytes"))
        )
        note = f"to the device {middle(device):.2f} times" if device else ""
        yield self._most(f"bytes written at {at:,} / K/V bytes", written, 1.05, note)
        for length in self.view.lengths(self.side, "memory"):
            risen = self._figure("memory", length, "ingest_mib")
            note = "a turn and a reading, in a process of its own"
            yield self._most(
                f"anonymous memory above the weights at {length:,}, MiB", risen, MEMORY_MIB, note
            )
        together = _over(
            self._figure("agents", four, "four_tokens_per_s"),
            self._figure("agents", four, "one_tokens_per_s"),
        )
        yield self._least("four agents decoding at once / one", together, 2.0)

    # -- figures of one round -------------------------------------------------------------------------

    def reading(self, side: str, length: int, run: int) -> float | None:
        """Tokens/s over a whole context, integrated."""
        points = []
        for at in self.view.lengths(side, "chunk", run):
            found = self.view.one(side, "chunk", at, run)
            points.append((at + found["tokens"] / 2, found["seconds"] / found["tokens"]))
        seconds = seconds_to_read(points, length)
        return None if not seconds else length / seconds

    def reading_whole(self, side: str, length: int, run: int) -> float | None:
        """Tokens/s over a whole context, read for real."""
        return _speed(self.view.one(side, "whole", length, run))

    def reading_chunk(self, side: str, length: int, run: int) -> float | None:
        """Tokens/s of a chunk behind so many tokens."""
        return _speed(self.view.one(side, "chunk", length, run))

    def decoding(self, side: str, length: int, run: int) -> float | None:
        """Tokens/s of a reply."""
        return self.view.value(side, "decode", length, "tokens_per_s", run)

    def _again(self, length: int, run: int) -> float | None:
        """Milliseconds to read so many tokens again, which full attention could not do faster."""
        speed = self.reading(self.side, length, run)
        return None if speed is None else 1000 * length / speed

    def _bandwidth_share(self, length: int, run: int) -> float | None:
        floors, speed = self.view.one(self.side, "floors", length, run), self.decoding(self.side, length, run)
        if not floors or speed is None:
            return None
        rate = max(floors["bytes_per_second"], floors["int8_bytes_per_second"])
        stored = sum(self.info[name] for name in ("attention_weight_bytes", "mlp_bytes", "vocabulary_bytes"))
        return float(speed * stored / rate)

    def _matmul_share(self, length: int, run: int) -> float | None:
        floors, found = (
            self.view.one(self.side, "floors", length, run),
            self.view.one(self.side, "chunk", length, run),
        )
        if not floors or not found:
            return None
        new, past = found["tokens"], min(length, self.info["budget"])
        weights = self.info["attention_weights"] + self.info["mlp_weights"]
        pairs = new * past + new * (new + 1) / 2
        flops = 2 * weights * new + 2 * self.info["vocabulary_weights"] + 4 * self.info["query_dims"] * pairs
        return float(flops / found["seconds"] / floors["flops_per_second"])

    # -- verdicts -------------------------------------------------------------------------------------

    def _beside(self, of: Figure, peer: str, length: int) -> OfRound:
        """Ours over a peer's."""
        return lambda run: _ratio(of(self.side, length, run), of(peer, length, run))

    def _flat(self, of: Figure, far: int, near: int) -> OfRound:
        """Ours at one length over ours at another."""
        return lambda run: _ratio(of(self.side, far, run), of(self.side, near, run))

    def _figure(self, what: str, length: int, figure: str, side: str | None = None) -> OfRound:
        """A figure of a cell of ours, or of a peer's."""
        return lambda run: self.view.value(self.side if side is None else side, what, length, figure, run)

    def _least(self, what: str, of: OfRound, limit: float, note: str = "") -> Verdict:
        return Verdict(what, self._rounds(of), limit, at_least=True, note=note)

    def _most(self, what: str, of: OfRound, limit: float, note: str = "") -> Verdict:
        return Verdict(what, self._rounds(of), limit, at_least=False, note=note)

    def _rounds(self, of: OfRound) -> tuple[float, ...]:
        return tuple(value for run in range(self.view.runs) if (value := of(run)) is not None)


def _over(top: OfRound, bottom: OfRound) -> OfRound:
    return lambda run: _ratio(top(run), bottom(run))


def _speed(found: Figures) -> float | None:
    return found["tokens"] / found["seconds"] if found else None


def _ratio(top: float | None, bottom: float | None) -> float | None:
    return None if top is None or not bottom else top / bottom
