"""Decoding one reply: what is forwarded, what the log keeps of it, and how it ends."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from agentmem.engine.decoding import Decoded, decode
from agentmem.engine.model import LanguageModel
from agentmem.engine.sampling import SamplingOptions
from agentmem.store import InMemoryHome
from support.scripted import Scripted
from support.session_agent import SessionAgent
from support.tiny_language_model import SMALL, language_model

TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


def run(
    model: LanguageModel, text: str, *, end: bool = True, **options: Any
) -> tuple[list[str], Decoded, list[int], int]:
    """Decode a scripted reply behind three ids: pieces, what was decoded, the script, tokens forwarded."""
    agent = SessionAgent(model, InMemoryHome(), SMALL)
    agent.store.begin()
    script = Scripted(model.tokenizer, text, end=end)
    with model.turn(agent.store.log, agent.store.digests, SMALL) as session:
        logits = session.read([5, 6, 7])
        replies: Generator[str, None, Decoded] = decode(
            session, logits, [5, 6, 7], SamplingOptions(**options), [script], model.template, model.tokenizer
        )
        pieces = []
        while True:
            try:
                pieces.append(next(replies))
            except StopIteration as stop:
                return pieces, stop.value, script.ids, session.forwarded - 3


def test_an_end_token_ends_the_reply_and_is_not_in_it(model: LanguageModel) -> None:
    """Every token of the text was forwarded and stays; the end token was neither."""
    pieces, decoded, ids, forwarded = run(model, TEXT)

    assert "".join(pieces) == decoded.text == TEXT
    assert decoded.finish_reason == "stop"
    assert decoded.logged == tuple(ids[:-1])
    assert decoded.unforwarded == ()
    assert decoded.sampled == decoded.forwarded == forwarded == len(ids) - 1


def test_an_empty_reply_is_a_reply(model: LanguageModel) -> None:
    """The end token first: no text, nothing forwarded."""
    pieces, decoded, _, forwarded = run(model, "")

    assert (pieces, decoded.text, decoded.logged, decoded.unforwarded) == ([], "", (), ())
    assert (decoded.finish_reason, forwarded) == ("stop", 0)


def test_the_last_token_of_a_long_reply_is_not_forwarded(model: LanguageModel) -> None:
    """Cut by its length: sampled one more than forwarded; both parts together are the tokens."""
    for limit in (1, 2, 7):
        _, decoded, ids, forwarded = run(model, TEXT, max_new_tokens=limit)
        assert decoded.finish_reason == "length"
        assert decoded.sampled == limit
        assert decoded.forwarded == forwarded == limit - 1
        assert (*decoded.logged, *decoded.unforwarded) == tuple(ids[:limit])
        assert len(decoded.unforwarded) == 1


def test_a_stop_string_anywhere_leaves_exactly_the_text_before_it(model: LanguageModel) -> None:
    """For every place of the text: the kept ids say the text that was shown, not a letter more."""
    for start in range(len(TEXT) - 2):
        stop = TEXT[start : start + 3]
        at = TEXT.find(stop)
        pieces, decoded, _, forwarded = run(model, TEXT, stop=(stop,))
        assert decoded.finish_reason == "stop_string"
        assert "".join(pieces) == decoded.text == TEXT[:at]
        assert model.tokenizer.decode([*decoded.logged, *decoded.unforwarded]) == TEXT[:at]
        assert len(decoded.logged) <= decoded.forwarded == forwarded


def test_a_closed_reply_forwards_nothing_more(model: LanguageModel) -> None:
    """Closing the generator ends decoding at once."""
    agent = SessionAgent(model, InMemoryHome(), SMALL)
    agent.store.begin()
    with model.turn(agent.store.log, agent.store.digests, SMALL) as session:
        logits = session.read([5, 6, 7])
        replies = decode(
            session, logits, [5, 6, 7], SamplingOptions(), [Scripted(model.tokenizer, TEXT)], model.template,
            model.tokenizer,
        )  # fmt: skip
        next(replies)
        before = session.forwarded
        replies.close()
        assert session.forwarded == before
