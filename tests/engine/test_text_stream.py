"""Text while it is sampled equals decoding everything at once, and is never shown too early."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentmem.engine.detokenize import ByteDetokenizer, WindowDetokenizer, detokenizer
from agentmem.engine.text_stream import StreamEnd, TextStream
from agentmem.errors import InputError
from support.templates import tokenizer_for

KINDS = ["chatml", "llama2"]
"""A byte-level tokenizer, and one of SentencePiece's kind with bytes for rare characters."""
SMALL = settings(max_examples=120, deadline=None)
TEXT = st.text(alphabet=st.sampled_from("ab .\n#:é你🙂🦜"), min_size=1, max_size=24)


def ids_of(name: str, text: str) -> list[int]:
    """The text's ids; with the small vocabularies of the tests rare characters are several tokens."""
    return list(tokenizer_for(name).encode(text, add_special_tokens=False))


def decode(name: str, ids: list[int]) -> str:
    """Everything at once: the slow, obvious way."""
    return str(tokenizer_for(name).decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def stream(name: str, stops: tuple[str, ...] = (), limit: int = 10_000) -> TextStream:
    """A stream over the named tokenizer."""
    return TextStream(tokenizer_for(name), stop_ids=[stop_of(name)], stop_strings=stops, max_new_tokens=limit)


def stop_of(name: str) -> int:
    """The token that ends a reply."""
    return int(tokenizer_for(name).eos_token_id)


def run(collector: TextStream, ids: list[int]) -> tuple[list[str], StreamEnd]:
    """Push ids until the reply ends, its stop token last; the pieces shown, and the end."""
    pieces = []
    for token in (*ids, *collector._stop_ids):
        pieces.append(collector.push(token))
        if collector.end is not None:
            return pieces, collector.end
    raise AssertionError("the reply did not end")


def test_each_tokenizer_gets_its_way() -> None:
    """Byte-level tokenizers are decoded by their bytes, all others by a window."""
    assert isinstance(detokenizer(tokenizer_for("chatml")), ByteDetokenizer)
    assert isinstance(detokenizer(tokenizer_for("llama2")), WindowDetokenizer)


@pytest.mark.parametrize("name", KINDS)
@SMALL
@given(text=st.text(max_size=40))
def test_pieces_of_any_text_join_to_the_whole(name: str, text: str) -> None:
    """For ids of real text the pieces joined are the decoded whole, and each joined start is a start of it."""
    ids = ids_of(name, text)
    assume(stop_of(name) not in ids)  # a text may spell out the token that ends the reply
    pieces, end = run(stream(name), ids)
    expected = decode(name, ids)
    shown = ""
    for piece in pieces:
        shown += piece
        assert expected.startswith(shown)

    assert shown == end.text == expected
    assert (end.finish_reason, end.kept, end.rest) == ("stop", len(ids), "")


@SMALL
@given(data=st.data())
def test_any_ids_of_a_byte_level_tokenizer_join_to_the_whole(data: st.DataObject) -> None:
    """Even for ids no text has, bytes that never become characters included."""
    size = len(tokenizer_for("chatml"))
    tokens = st.integers(0, size + 3).filter(lambda i: i != stop_of("chatml"))
    ids = data.draw(st.lists(tokens, max_size=30))
    pieces, end = run(stream("chatml"), ids)

    assert "".join(pieces) == end.text == decode("chatml", [i for i in ids if i < size])


@pytest.mark.parametrize("name", KINDS)
def test_never_half_a_character(name: str) -> None:
    """An emoji of several tokens is shown when its last byte is there."""
    ids = ids_of(name, "a🦜")
    pieces, _ = run(stream(name), ids)

    assert len(ids) >= 4
    assert "�" not in "".join(pieces)
    assert pieces[-2] == "🦜"


@pytest.mark.parametrize("name", KINDS)
def test_a_reply_cut_inside_a_character_shows_it_as_broken(name: str) -> None:
    """At the token limit the incomplete character appears as decoding shows it."""
    ids = ids_of(name, "a🦜")[:-1]
    pieces, end = run(stream(name, limit=len(ids)), ids)

    assert end == StreamEnd("length", decode(name, ids), len(ids), "")
    assert "".join(pieces) == end.text


@pytest.mark.parametrize("name", KINDS)
def test_endless_broken_bytes_are_let_through(name: str) -> None:
    """Bytes that never become a character are shown after a while, not held for ever."""
    byte = ids_of(name, "🦜")[-2]
    collector = stream(name)
    shown = "".join(collector.push(byte) for _ in range(100))

    assert len(shown) >= 60
    assert set(shown) == {"�"}


def naive_cut(name: str, ids: list[int], stops: tuple[str, ...]) -> tuple[str, int] | None:
    """The slow way: decode everything after each token; (text before the first stop string, tokens seen)."""
    for seen in range(1, len(ids) + 1):
        text = decode(name, ids[:seen])
        found = [at for stop in stops if (at := text.find(stop)) >= 0]
        if found:
            return text[: min(found)], seen
    return None


@pytest.mark.parametrize("name", KINDS)
@SMALL
@given(text=TEXT, data=st.data())
def test_stop_strings_cut_where_the_naive_way_does(name: str, text: str, data: st.DataObject) -> None:
    """Text, kept tokens and rest are those of decoding everything after each token."""
    ids = ids_of(name, text)
    start = data.draw(st.integers(0, len(text) - 1))
    inside = text[start : start + data.draw(st.integers(1, 4))]
    stops = (inside, *data.draw(st.lists(TEXT, max_size=2)))
    pieces, end = run(stream(name, stops), ids)
    expected = naive_cut(name, ids, stops)
    if expected is None:  # the tokenizer changed the text, such as a space put before it
        assert (end.finish_reason, end.text) == ("stop", decode(name, ids))
        return
    whole = [
        count
        for count in range(expected[1])
        if expected[0].startswith(decode(name, ids[:count])) and "�" not in decode(name, ids[:count])
    ]

    assert "".join(pieces) == end.text == expected[0]
    assert end.finish_reason == "stop_string"
    assert end.kept == max(whole)
    assert decode(name, ids[: end.kept]) + end.rest == end.text


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    """Nothing of a stop string is ever shown, even if it comes in many tokens; a false start is shown."""
    name = "chatml"
    text = "ok\n##\n### Us fine\n### User: x"
    pieces, end = run(stream(name, ("\n### User:",)), ids_of(name, text))

    assert "".join(pieces) == end.text == "ok\n##\n### Us fine"


def test_held_text_is_shown_at_the_end() -> None:
    """What looked like the beginning of a stop string belongs to the text if the reply ends there."""
    pieces, end = run(stream("chatml", ("\n### User:",)), ids_of("chatml", "ok\n### U"))

    assert "".join(pieces) == end.text == "ok\n### U"
    assert end.finish_reason == "stop"


def test_earliest_of_several_stop_strings_counts() -> None:
    """Of stop strings found at once the one that begins first cuts."""
    _, end = run(stream("chatml", ("jumps", "brown fox")), ids_of("chatml", "quick brown fox jumps"))

    assert end.text == "quick "


def test_the_token_limit_ends_the_reply() -> None:
    """The last allowed token is kept, and the reason says so."""
    ids = ids_of("chatml", "one two three four five")[:4]
    _, end = run(stream("chatml", limit=4), ids)

    assert (end.finish_reason, end.kept) == ("length", 4)


def test_special_tokens_have_no_text_but_are_kept() -> None:
    """A special token inside a reply is not shown; the log holds it, since it was forwarded."""
    special = tokenizer_for("chatml").convert_tokens_to_ids("<|im_start|>")
    _, end = run(stream("chatml"), [*ids_of("chatml", "a"), special, *ids_of("chatml", "b")])

    assert (end.text, end.kept) == ("ab", 3)


def test_nothing_follows_the_end() -> None:
    """A token after the end is an error, and changes nothing."""
    collector = stream("chatml")
    collector.push(stop_of("chatml"))
    end = collector.end

    with pytest.raises(InputError, match="has ended"):
        collector.push(1)
    assert collector.end is end
