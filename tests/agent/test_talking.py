"""Talking: options, what is refused, how a reply ends, and what the log then says."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentmem.agent import AgentMemory
from agentmem.engine.model import LanguageModel
from agentmem.errors import AgentBusyError, ClosedError, InputError, ReadOnlyError
from agentmem.store import InMemoryHome
from support.agent_state import state_of
from support.scripted import Scripted, rendered
from support.tiny_language_model import SMALL, language_model

AT = "2026-01-02T03:04:05+00:00"


@pytest.fixture
def model() -> LanguageModel:
    """The shared tiny model."""
    return language_model()


@pytest.fixture
def memory(model: LanguageModel) -> AgentMemory:
    """An agent that was told one thing."""
    memory = AgentMemory.resume("ada", model=model, home=InMemoryHome(), config=SMALL)
    say(memory, "My dog is called Biscuit.", "Hello there!")
    return memory


def say(memory: AgentMemory, text: str, answer: str, **options: Any) -> Any:
    """A turn whose reply is known beforehand."""
    scripted = Scripted(memory.tokenizer, answer)
    message = {"role": "user", "content": text}
    return memory.generate([message], logits_processor=[scripted], at=AT, **options)


def ids_of(memory: AgentMemory) -> list[int]:
    """All ids in the log."""
    return memory._store.token_ids(0, memory.tokens_held)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m.chat(""), "empty"),
        (lambda m: m.chat(" \n"), "empty"),
        (lambda m: m.chat(5), "str"),
        (lambda m: m.chat("half an emoji: \ud83d"), "UTF-8"),
        (lambda m: m.chat("Hi", speaker="\udce9"), "UTF-8"),
        (lambda m: m.chat("Hi", source="\udce9"), "source"),
        (lambda m: m.append([{"role": "user", "content": "caf\udce9"}]), "UTF-8"),
        (lambda m: m.observe("caf\udce9"), "UTF-8"),
        (lambda m: m.observe("A text.", source=""), "source"),
        (lambda m: m.observe("A text.", source=5), "source"),
        (lambda m: m.search(5), "str"),
        (lambda m: m.search("dog", limit=2.0), "limit"),
        (lambda m: m.history(limit="all"), "limit"),
        (lambda m: m.forget(turn="1"), "turn"),
        (lambda m: m.forget(turn=True), "turn"),
        (lambda m: m.forget(match=5), "match"),
        (lambda m: m.forget(source=5), "source"),
        (lambda m: m.chat("Hi", max_tokens=5), "max_new_tokens"),
        (lambda m: m.chat("Hi", temperature=-1), "temperature"),
        (lambda m: m.chat("Hi", top_p=0), "top_p"),
        (lambda m: m.chat("Hi", max_new_tokens=0), "max_new_tokens"),
        (lambda m: m.chat("Hi", stop=("",)), "stop"),
        (lambda m: m.chat("Hi", at="yesterday"), "ISO 8601"),
        (lambda m: m.chat("Hi", at=5), "datetime"),
        (lambda m: m.chat("Hi", speaker=""), "speaker"),
        (lambda m: m.generate("Hi"), "list"),
        (lambda m: m.generate({"role": "user", "content": "Hi"}), "list"),
        (lambda m: m.generate(None), "list"),
        (lambda m: m.generate([]), "empty"),
        (lambda m: m.generate(["Hi"]), "str"),
        (lambda m: m.generate([{"role": "robot", "content": "Hi"}]), "robot"),
        (lambda m: m.generate([{"content": "Hi"}]), "role"),
        (lambda m: m.generate([{"role": "user", "content": 5}]), "int"),
        (lambda m: m.generate([{"role": "user", "content": None, "tool_calls": [{}]}]), "content"),
        (lambda m: m.append([{"role": "user", "content": " "}]), "empty"),
        (lambda m: m.observe(""), "empty"),
        (lambda m: m.observe("Hi", role="assistant"), "assistant"),
        (lambda m: m.history(limit=0), "limit"),
        (lambda m: m.search("?!"), "word"),
        (lambda m: m.search("dog", limit=0), "limit"),
        (lambda m: m.forget(), "turn="),
        (lambda m: m.forget(match=" "), "match"),
        (lambda m: m.forget(turn=1, mode="burn"), "burn"),
        (lambda m: m.forget(turn=1, everything=True), "everything"),
    ],
)
def test_what_cannot_be_used_is_refused_and_changes_nothing(
    memory: AgentMemory, call: Any, words: str
) -> None:
    """An InputError that names the trouble; the memory is as it was, and open for the next call."""
    before = state_of(memory)
    with pytest.raises(InputError, match=words):
        call(memory)
    assert state_of(memory) == before
    assert memory.chat("Hi", max_new_tokens=2).text is not None


def test_the_log_is_the_templates_rendering(memory: AgentMemory) -> None:
    """Turn by turn, the log and what is pending are the whole conversation as the template writes it."""
    say(memory, "And again?", "Your dog is called Biscuit.")
    talk = [
        {"role": "user", "content": "My dog is called Biscuit."},
        {"role": "assistant", "content": "Hello there!"},
        {"role": "user", "content": "And again?"},
        {"role": "assistant", "content": "Your dog is called Biscuit."},
        {"role": "user", "content": "How far?"},
    ]
    memory.append([talk[-1]])
    wanted = rendered(memory.tokenizer, talk, reply=False)

    assert ids_of(memory) == wanted[: memory.tokens_held]
    assert len(wanted) - memory.tokens_held <= 2, "only the last message's closing is still missing"
    reply = memory.generate([{"role": "user", "content": "Please."}], max_new_tokens=1)
    talk[-1:] = [{"role": "user", "content": "How far?"}, {"role": "user", "content": "Please."}]
    assert ids_of(memory)[:-1] == rendered(memory.tokenizer, talk, reply=True)
    assert reply.finish_reason == "length" and ids_of(memory)[-1] == reply.token_ids[0]


def test_a_reply_ends_with_the_end_token(memory: AgentMemory) -> None:
    """finish_reason "stop"; the end token is no text, and the pieces of a stream are the text."""
    reply = say(memory, "Who?", "The quick brown fox.")
    assert (reply.text, reply.finish_reason) == ("The quick brown fox.", "stop")
    assert memory.tokenizer.decode(reply.token_ids) == reply.text
    assert reply.usage.output_tokens == len(reply.token_ids) == reply.receipt.tokens_generated
    stream = memory.generate_stream(
        [{"role": "user", "content": "Who?"}], logits_processor=[Scripted(memory.tokenizer, "naïve café 🙂")]
    )
    assert "".join(stream) == stream.reply.text == str(stream.reply) == "naïve café 🙂"


def test_a_reply_cut_by_its_length_is_whole_in_its_turn(memory: AgentMemory) -> None:
    """finish_reason "length": the last token is forwarded too; the next turn begins with what closes the message."""
    text = "The quick brown fox jumps over the lazy dog."
    reply = say(memory, "Who?", text, max_new_tokens=5)
    assert reply.finish_reason == "length"
    assert len(reply.token_ids) == 5
    held = memory.tokens_held
    assert ids_of(memory)[-5:] == list(reply.token_ids)
    assert memory._store.head.pending["ids"] == []
    assert reply.receipt.tokens_reread == 0

    say(memory, "And?", "Hello there!")
    new = memory._store.token_ids(held, memory.tokens_held)
    talk = [{"role": "assistant", "content": reply.text}, {"role": "user", "content": "And?"}]
    wanted = memory.tokenizer.decode(rendered(memory.tokenizer, talk, reply=True))
    assert memory.tokenizer.decode(new).startswith("<|im_end|>")
    assert wanted.endswith(memory.tokenizer.decode(new).removesuffix("Hello there!"))


@pytest.mark.parametrize("stop", ["fox", "ick bro", "jumps over", ".", ("lazy", "over"), "x j"])
def test_nothing_behind_a_stop_string_is_kept(memory: AgentMemory, stop: Any) -> None:
    """Text, log and the next turn's rendering end where the stop string begins, in the middle of a token too."""
    text = "The quick brown fox jumps over the lazy dog. How far"
    reply = say(memory, "Who?", text, stop=stop)
    stops = (stop,) if isinstance(stop, str) else stop
    wanted = text[: min(text.find(one) for one in stops)]

    assert reply.finish_reason == "stop_string"
    assert reply.text == wanted
    assert memory.history()[-1].messages[-1]["content"] == wanted
    assert memory.tokenizer.decode(ids_of(memory)).endswith(f"<|im_start|>assistant\n{wanted}")
    memory.append([{"role": "user", "content": "And?"}])
    whole = memory.tokenizer.decode(ids_of(memory))
    assert whole.endswith(f"<|im_start|>assistant\n{wanted}<|im_end|>\n<|im_start|>user\nAnd?")


def test_a_seed_draws_the_same_reply_again(memory: AgentMemory) -> None:
    """Sampled with a seed, from the same state: the same ids; another seed draws others."""
    options: dict[str, Any] = {"remember": False, "temperature": 1.5, "max_new_tokens": 16}
    first, again, other = (memory.chat("Hi", seed=seed, **options) for seed in (3, 3, 4))

    assert first.token_ids == again.token_ids
    assert first.token_ids != other.token_ids


def test_sampling_options_reach_the_sampler(memory: AgentMemory) -> None:
    """top_k=1 and a tiny top_p are greedy at any temperature; a strong penalty is not."""
    options: dict[str, Any] = {"remember": False, "max_new_tokens": 12, "seed": 1}
    greedy = memory.chat("Hi", **options)

    assert memory.chat("Hi", temperature=2.0, top_k=1, **options).token_ids == greedy.token_ids
    assert memory.chat("Hi", temperature=2.0, top_p=1e-6, **options).token_ids == greedy.token_ids
    assert memory.chat("Hi", repetition_penalty=50.0, **options).token_ids != greedy.token_ids


def test_a_date_and_a_speaker_are_put_before_the_text(model: LanguageModel) -> None:
    """The stamp is the model's clock; history keeps what was said, when, and by whom."""
    config = SMALL.changed(stamp="%Y-%m-%d")
    memory = AgentMemory.resume("ada", model=model, home=InMemoryHome(), config=config)
    memory.chat("Hello", at=datetime(2026, 3, 1, 9, 30, tzinfo=UTC), speaker="Ann", max_new_tokens=2)
    memory.observe("A note.", at="2026-03-02")

    whole = memory.tokenizer.decode(ids_of(memory))
    assert "<|im_start|>user\n[2026-03-01] Ann: Hello<|im_end|>" in whole
    assert "<|im_start|>user\n[2026-03-02] A note." in whole
    first, second = memory.history()
    assert first.messages[0] == {"role": "user", "content": "Hello", "name": "Ann"}
    assert first.created_at.startswith("2026-03-01T09:30")
    assert second.created_at.startswith("2026-03-02")


def test_figures_are_what_happened(memory: AgentMemory) -> None:
    """Receipt and usage: tokens held, read, written, and nothing read again."""
    held = memory.tokens_held
    reply = memory.chat("How far is it?", max_new_tokens=6)

    assert reply.receipt.tokens_held == memory.tokens_held
    assert reply.receipt.tokens_reread == 0
    assert memory.tokens_held == held + reply.receipt.tokens_prefilled + 6
    assert reply.usage.cached_tokens == held
    assert reply.usage.input_tokens == reply.receipt.tokens_prefilled
    assert reply.usage.total_tokens == reply.usage.input_tokens + 6
    assert 0 < reply.receipt.seconds_to_first <= reply.receipt.seconds
    assert reply.state_id == memory.checkpoint()


def test_a_closed_memory_refuses_every_call(memory: AgentMemory) -> None:
    """ClosedError, also for the stream that was open; closing twice is fine."""
    stream = memory.stream("Hi", max_new_tokens=20)
    next(stream)
    memory.close()
    memory.close()
    with pytest.raises(ClosedError):
        _ = stream.reply
    assert list(stream) == []
    for call in (
        lambda: memory.chat("Hi"),
        lambda: memory.observe("Hi"),
        lambda: memory.append([{"role": "user", "content": "Hi"}]),
        lambda: memory.explain(),
        lambda: memory.history(),
        lambda: memory.checkpoint(),
        lambda: memory.forget(turn=1),
        lambda: memory.fork("eve"),
    ):
        with pytest.raises(ClosedError):
            call()
    assert "closed" in repr(memory)


def test_leaving_the_with_block_drops_an_unfinished_stream(model: LanguageModel) -> None:
    """The error that ended the block is the one that is seen, and the agent is free again."""
    home = InMemoryHome()

    def fail_in_the_middle() -> None:
        with AgentMemory.resume("ada", model=model, home=home, config=SMALL) as memory:
            stream = memory.stream("Hi", max_new_tokens=20)
            next(stream)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_the_middle()
    with AgentMemory.resume("ada", model=model, home=home) as memory:
        assert memory.tokens_held == 0


def test_a_call_in_the_middle_of_its_own_stream_is_refused(memory: AgentMemory) -> None:
    """It would wait for itself; the stream goes on unharmed."""
    stream = memory.stream("Hi", max_new_tokens=20)
    next(stream)
    for call in (lambda: memory.chat("Hi"), lambda: memory.checkpoint(), lambda: memory.stream("Hi")):
        with pytest.raises(AgentBusyError):
            call()
    assert stream.read().text
    assert memory.chat("Hi", max_new_tokens=1)


def test_calls_from_threads_queue(memory: AgentMemory) -> None:
    """Eight threads at once: eight whole turns, one after the other."""
    before = len(memory.history())
    start = threading.Barrier(8)

    def talk(number: int) -> None:
        start.wait()
        say(memory, f"I am {number}.", f"Hello {number}")

    threads = [threading.Thread(target=talk, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns = memory.history()[before:]

    assert len(turns) == 8
    assert all(
        turn.messages[0]["content"] == f"I am {n}." and turn.messages[1]["content"] == f"Hello {n}"
        for turn in turns
        for n in [turn.messages[0]["content"][5:-1]]
    )


def test_a_read_only_memory_can_be_looked_at_alone(model: LanguageModel, tmp_path: Path) -> None:
    """history, search, explain and verify work beside a writer; everything else is refused."""
    writer = AgentMemory.resume("ada", model=model, home=tmp_path, config=SMALL)
    say(writer, "My dog is called Biscuit.", "Hello there!")
    with AgentMemory.resume("ada", home=tmp_path, read_only=True) as reader:
        assert reader.search("Biscuit")[0].text == "My dog is called Biscuit."
        assert [turn.kind for turn in reader.history()] == ["chat"]
        assert reader.verify(deep=True).ok
    with AgentMemory.resume("ada", home=tmp_path, read_only=True, model=model) as reader:
        assert reader.explain().answer == "Hello there!"
        for call in (
            lambda: reader.chat("Hi"),
            lambda: reader.observe("Hi"),
            lambda: reader.append([{"role": "user", "content": "Hi"}]),
            lambda: reader.rewind(None),
            lambda: reader.forget(turn=1),
        ):
            with pytest.raises(ReadOnlyError):
                call()


def test_search_finds_turns_by_their_words(memory: AgentMemory) -> None:
    """Any case, with punctuation, words in question and answer; newest turn first."""
    say(memory, "And my cat?", "Your cat is no biscuit, thank you.")

    assert [hit.role for hit in memory.search("BISCUIT?")] == ["assistant", "user"]
    assert next(hit.text for hit in memory.search("cat biscuit")) == "And my cat?"
    assert memory.search("walrus") == []
    assert len(memory.search("biscuit", limit=1)) == 1


def test_a_stream_says_how_it_stands(memory: AgentMemory) -> None:
    """Its repr tells a stream that is being read from a complete one and from one that was closed early."""
    first = memory.stream("Hello", max_new_tokens=2)
    assert repr(first) == "<ReplyStream: being read>"
    first.read()
    assert repr(first) == "<ReplyStream: complete>"
    second = memory.stream("Hello", max_new_tokens=2)
    second.close()
    assert repr(second) == "<ReplyStream: closed>"
