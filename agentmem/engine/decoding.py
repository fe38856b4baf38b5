"""Decoding one reply: sample, forward, detokenise, stop. Knows no store; the log follows its session.

The last sampled token is never forwarded here: what it means for the log is the caller's to keep.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from agentmem.engine.sampling import LogitsProcessor, Sampler, SamplingOptions
from agentmem.engine.session import Session
from agentmem.engine.template import ChatTemplate, FinishReason
from agentmem.engine.text_stream import TextStream


@dataclass(frozen=True)
class Decoded:
    """A finished reply as tokens. What the memory keeps is ``logged`` then ``unforwarded``."""

    text: str
    finish_reason: FinishReason
    sampled: int
    """Tokens sampled, a stop token left out."""
    forwarded: int
    """Of these, tokens that went through the model and into the log."""
    logged: tuple[int, ...]
    """Forwarded ids that stay; fewer than ``forwarded`` when a stop string cut the reply."""
    unforwarded: tuple[int, ...]
    """Ids that belong to the reply but have not been forwarded."""


def decode(
    session: Session,
    logits: Tensor,
    prompt_ids: Sequence[int],
    options: SamplingOptions,
    processors: Sequence[LogitsProcessor],
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
) -> Generator[str, None, Decoded]:
    """Sample a reply that begins with ``logits`` (V,); yields pieces of text, returns what was decoded."""
    sampler = Sampler(options, prompt_ids, processors)
    stream = TextStream(
        tokenizer,
        stop_ids=template.stop_ids,
        stop_strings=(*options.stop, *template.stop_strings),
        max_new_tokens=options.max_new_tokens,
    )
    ends = tuple(template.stop_ids)
    sampled: list[int] = []
    forwarded = 0
    while True:
        token = sampler.next(logits, barred=ends if len(sampled) < options.min_new_tokens else ())
        piece = stream.push(token)
        if stream.sampled > len(sampled):
            sampled.append(token)
        if piece:
            yield piece
        if stream.end is not None:
            break
        logits = session.step(token)
        forwarded += 1
    end = stream.end
    rest = template.encode_reply(end.rest) if end.rest else ()
    return Decoded(
        text=end.text,
        finish_reason=end.finish_reason,
        sampled=len(sampled),
        forwarded=forwarded,
        logged=tuple(sampled[: min(end.kept, forwarded)]),
        unforwarded=(*sampled[forwarded : end.kept], *rest),
    )
