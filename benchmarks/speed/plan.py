"""What is measured, by whom and where: a list of steps for one round. Knows no worker and no clock.

Lengths are given in thousands (of 1,024 tokens), times ``unit``/1,024, so that a quick run is the same run in small.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

TRANSFORMERS = "transformers bf16"
LLAMA = "llama.cpp Q4"
PEERS = {"transformers": TRANSFORMERS, "llamacpp": LLAMA}
STOCK = "bf16"
"""Weights as the checkpoint has them."""
MILLION = 1_024
"""A million tokens, in thousands of 1,024."""


def ours(weights: str) -> str:
    """The name of agentmem's side with such weights."""
    return f"agentmem {weights}"


def model_of(side: str, model: str) -> str:
    """What agentmem calls a model whose weights a side of ours holds in its way."""
    weights = side.removeprefix(ours(""))
    return model if weights == STOCK else f"{model}:{weights}"


@dataclass(frozen=True)
class Step:
    """One cell of every round."""

    side: str
    what: str
    length: int
    arguments: dict[str, int] = field(default_factory=dict, hash=False)
    once: bool = False
    """Measured in the first round alone."""


@dataclass(frozen=True)
class Sizes:
    """Tokens of single measurements."""

    unit: int = 1_024
    chunk: int = 512
    reply: int = 130
    """Of ours: two reselections, so that their cost is in the mean."""
    peer_reply: int = 17
    """Of transformers, which has nothing that is done now and then."""
    llama_reply: int = 33

    def tokens(self, thousands: float) -> int:
        """A length in tokens."""
        return int(thousands * self.unit)


_READ = (0, 1, 1.5, 2, 4, 8, 16, 32, 128)
_PEER_READ = (0, 2, 4, 8, 16, 32)
FLOORS_READ, FLOORS_DECODE = 8, 4
"""Where reading and decoding are held against what the machine does at that moment."""


def steps(
    weights: Sequence[str],
    peers: Collection[str],
    sizes: Sizes,
    *,
    long: bool,
    wanted: Callable[[str, int], bool],
) -> list[Step]:
    """The steps of a round: those of one kind and length stand together, so that they are measured together.

    Args:
        weights: kinds of weights of ours.
        peers: keys of ``PEERS``.
        sizes: how many tokens.
        long: with what takes long: a million tokens, and llama.cpp's reading at 32K.
        wanted: told (kind, length); False leaves a cell out.
    """
    own = [ours(one) for one in weights]
    found = _reading(own, peers, sizes, long=long)
    found += _decoding(own, peers, sizes, long=long)
    million = (MILLION,) if long else ()
    for side in own:
        found += [Step(side, "resume", sizes.tokens(n)) for n in (4, 64, 128, *million)]
        found.append(Step(side, "turn", sizes.tokens(16), {"tokens": sizes.reply}))
        found.append(Step(side, "agents", sizes.tokens(4), {"tokens": sizes.llama_reply}))
    if "llamacpp" in peers:
        found.append(Step(LLAMA, "state", sizes.tokens(16)))
    for n in (4, 128, *million):
        found += [Step(side, "memory", sizes.tokens(n), once=True) for side in own]
    return [step for step in found if wanted(step.what, step.length)]


def _reading(own: Sequence[str], peers: Collection[str], sizes: Sizes, *, long: bool) -> list[Step]:
    chunk = {"tokens": sizes.chunk}
    found = []
    for n in (*_READ, *((64, MILLION) if long else ())):
        if n == FLOORS_READ:
            found += [Step(side, "floors", sizes.tokens(n)) for side in own]
        found += [Step(side, "chunk", sizes.tokens(n), chunk) for side in own]
        if "transformers" in peers and n in _PEER_READ:
            found.append(Step(TRANSFORMERS, "chunk", sizes.tokens(n), chunk))
        if "llamacpp" in peers and n in _PEER_READ and (long or n <= 16):
            found.append(Step(LLAMA, "chunk", sizes.tokens(n), chunk))
    for n in (2, 4) if long else (2,):
        everyone = [*own, *(PEERS[peer] for peer in peers)]
        found += [Step(side, "whole", sizes.tokens(n)) for side in everyone]
    return found


def _decoding(own: Sequence[str], peers: Collection[str], sizes: Sizes, *, long: bool) -> list[Step]:
    found = []
    for n in (4, 16, 32, 128, *((MILLION,) if long else ())):
        if n == FLOORS_DECODE:
            found += [Step(side, "floors", sizes.tokens(n)) for side in own]
        found += [Step(side, "decode", sizes.tokens(n), {"tokens": sizes.reply}) for side in own]
        if n <= 32 and "transformers" in peers:
            found.append(Step(TRANSFORMERS, "decode", sizes.tokens(n), {"tokens": sizes.peer_reply}))
        if n <= 32 and "llamacpp" in peers:
            found.append(Step(LLAMA, "decode", sizes.tokens(n), {"tokens": sizes.llama_reply}))
    return found
