"""Callbacks: what any model's chain leaves in an agent's memory, and that it is there once."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel, FakeListLLM, FakeStreamingListLLM
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnableWithFallbacks

from agentmem import AgentMemory, ClosedError, ConfigError, InMemoryHome, InputError
from langchain_agentmem.callbacks import AgentMemoryCallback, AsyncAgentMemoryCallback, atrack, track
from support.tiny_language_model import SMALL, language_model

Callback = AgentMemoryCallback | AsyncAgentMemoryCallback
PROMPT = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{x}")])


@pytest.fixture
def memory() -> Iterator[AgentMemory]:
    """An empty agent on tiny weights."""
    with new_memory() as memory:
        yield memory


def new_memory(template: str = "chatml") -> AgentMemory:
    """An empty agent whose model has that chat template."""
    model = language_model(template=template)
    return AgentMemory.resume("ada", model=model, home=InMemoryHome(), config=SMALL)


def model(*answers: str | AIMessage | Exception) -> GenericFakeChatModel:
    """Another model, which says these things in turn; without any, "Hello there." each time."""
    return Replying(messages=itertools.cycle(answers or ("Hello there.",)))


class Replying(GenericFakeChatModel):
    """LangChain's streaming fake, which raises an answer that is an exception, and counts tokens it gave."""

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        answer = next(self.messages)
        if isinstance(answer, Exception):
            raise answer
        message = AIMessage(answer) if isinstance(answer, str) else answer.model_copy()
        once = GenericFakeChatModel(messages=iter([message]))
        return once._generate(messages)


def told(memory: AgentMemory) -> list[list[tuple[str, str]]]:
    """(role, text) of every turn of the memory."""
    return [[(message["role"], message["content"]) for message in turn.messages] for turn in memory.history()]


def config(callback: Callback, **metadata: Any) -> Any:
    """A call's config with the callback in it."""
    return {"callbacks": [callback], "metadata": metadata}


def ask(callback: Callback, chain: Any, given: Any) -> None:
    """Invoke a chain the way the callback was made for."""
    if isinstance(callback, AsyncAgentMemoryCallback):
        asyncio.run(chain.ainvoke(given, config(callback)))
    else:
        chain.invoke(given, config(callback))


@pytest.fixture(params=[AgentMemoryCallback, AsyncAgentMemoryCallback])
def kind(request: pytest.FixtureRequest) -> type[Callback]:
    """The sync callback and its async twin."""
    cls: type[Callback] = request.param
    return cls


# -- what is recorded ------------------------------------------------------------------------------


def test_a_chain_becomes_a_turn(memory: AgentMemory, kind: type[Callback]) -> None:
    """System prompt, question and answer are one turn; its state is known, and the memory goes on from it."""
    callback = kind(memory)
    chain = PROMPT | model("Hello there.") | StrOutputParser()

    ask(callback, chain, {"x": "Hi."})

    assert told(memory) == [[("system", "Be brief."), ("user", "Hi."), ("assistant", "Hello there.")]]
    assert callback.last_state_id == memory.checkpoint()
    assert callback.errors == []
    assert memory.chat("And you?", max_new_tokens=2).receipt.tokens_reread == 0


def test_the_system_prompt_is_told_once(memory: AgentMemory) -> None:
    """A prompt that each call repeats is in the memory once; the same question asked twice is there twice."""
    chain = PROMPT | model()

    for _ in range(2):
        chain.invoke({"x": "Hi."}, config(AgentMemoryCallback(memory)))

    turn = [("user", "Hi."), ("assistant", "Hello there.")]
    assert told(memory) == [[("system", "Be brief."), *turn], turn]


@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("anew", [True, False])
def test_a_resent_history_is_recorded_once(memory: AgentMemory, with_ids: bool, anew: bool) -> None:
    """A chain that sends everything again adds the new messages only, in a new process too."""
    llm = model("One.", "Two.", "Three.")
    callback = AgentMemoryCallback(memory)
    history: list[BaseMessage] = []

    for n, text in enumerate(["a", "b", "a"]):
        callback = AgentMemoryCallback(memory) if anew else callback
        history.append(HumanMessage(text, id=f"h{n}" if with_ids else None))
        answer = llm.invoke(history, config(callback))
        history.append(answer if with_ids else AIMessage(answer.content))

    assert told(memory) == [
        [("user", "a"), ("assistant", "One.")],
        [("user", "b"), ("assistant", "Two.")],
        [("user", "a"), ("assistant", "Three.")],
    ]


def test_a_trimmed_history_is_recorded_once(memory: AgentMemory) -> None:
    """When the beginning of the list is cut off or summarised, nothing of the rest is told again."""
    llm = model("One.", "Two.", "Three.")
    callback = AgentMemoryCallback(memory)
    first = [HumanMessage("a", id="1")]
    first.append(llm.invoke(first, config(callback)))
    second = [*first, HumanMessage("b", id="2")]
    second.append(llm.invoke(second, config(callback)))
    summary = HumanMessage("Here is a summary.", id="s", additional_kwargs={"lc_source": "summarization"})

    llm.invoke([summary, *second[2:], HumanMessage("c", id="3")], config(callback))

    assert told(memory)[2:] == [[("user", "c"), ("assistant", "Three.")]]


def test_a_question_asked_again_keeps_both_answers(memory: AgentMemory) -> None:
    """Asked anew behind the same answer, the question is told once and the other answer is added."""
    llm = model("One.", "Two.", "Other.")
    callback = AgentMemoryCallback(memory)
    history = [HumanMessage("a"), llm.invoke([HumanMessage("a")], config(callback)), HumanMessage("b")]

    llm.invoke(history, config(callback))
    llm.invoke(history, config(callback))

    assert told(memory)[1:] == [[("user", "b"), ("assistant", "Two.")], [("assistant", "Other.")]]


def test_an_edited_question_is_a_new_one(memory: AgentMemory) -> None:
    """The same id with another text is another message."""
    llm = model("One.", "Two.")
    callback = AgentMemoryCallback(memory)

    llm.invoke([HumanMessage("a", id="1")], config(callback))
    llm.invoke([HumanMessage("b", id="1")], config(callback))

    assert told(memory)[1] == [("user", "b"), ("assistant", "Two.")]


def test_a_foreign_history_is_taken_in(memory: AgentMemory) -> None:
    """A conversation that began without the callback is recorded from its first message on."""
    history = [HumanMessage("a"), AIMessage("A."), HumanMessage("b")]

    model("B.").invoke(history, config(AgentMemoryCallback(memory)))

    assert told(memory) == [[("user", "a"), ("assistant", "A."), ("user", "b"), ("assistant", "B.")]]


def test_two_conversations_share_an_agent(memory: AgentMemory) -> None:
    """The same words said in two conversations are told in both, and each goes on behind its own answer."""
    llm = model("One.", "Uno.", "Yes one.", "Yes uno.")
    callback = AgentMemoryCallback(memory)
    first = [HumanMessage("a"), llm.invoke([HumanMessage("a")], config(callback)), HumanMessage("ok")]
    other = [HumanMessage("b"), llm.invoke([HumanMessage("b")], config(callback)), HumanMessage("ok")]

    llm.invoke(first, config(callback))
    llm.invoke(other, config(callback))

    assert told(memory)[2:] == [
        [("user", "ok"), ("assistant", "Yes one.")],
        [("user", "ok"), ("assistant", "Yes uno.")],
    ]


def test_a_plain_llm_is_recorded(memory: AgentMemory) -> None:
    """A model of texts leaves its prompt and its completion; a batch leaves a turn for each prompt."""
    FakeListLLM(responses=["A.", "B."]).batch(["a", "b"], config(AgentMemoryCallback(memory)))

    assert told(memory) == [[("user", "a"), ("assistant", "A.")], [("user", "b"), ("assistant", "B.")]]


def test_the_items_of_a_batch_stay_apart(memory: AgentMemory) -> None:
    """Every item is a turn of its own, whatever order the threads ran in."""
    echo = RunnableLambda(lambda value: value.to_messages()[-1].content)
    chain = PROMPT | RunnableParallel(said=model("Yes."), asked=echo)

    chain.batch([{"x": str(n)} for n in range(8)], config(AgentMemoryCallback(memory)))

    turns = [[row for row in turn if row[0] != "system"] for turn in told(memory)]
    assert sorted(turns) == [[("user", str(n)), ("assistant", "Yes.")] for n in range(8)]


def test_two_models_of_one_chain_are_one_turn(memory: AgentMemory) -> None:
    """All that a root chain's models were told and said is one turn, each call's messages together."""
    first, second = model("First."), model("Second.")
    chain = RunnableLambda(lambda x: f"{first.invoke(x).content} {second.invoke('And ' + x).content}")

    assert chain.invoke("a", config(AgentMemoryCallback(memory))) == "First. Second."

    assert told(memory) == [
        [("user", "a"), ("assistant", "First."), ("user", "And a"), ("assistant", "Second.")]
    ]


def test_a_callback_of_one_model_records_that_model(memory: AgentMemory) -> None:
    """Given to a model inside a chain, it records this model only, though it never saw the chain's start."""
    inner = model("Inner.").with_config(callbacks=[AgentMemoryCallback(memory)])
    chain = RunnableLambda(lambda x: model("Other.").invoke(x)) | RunnableLambda(lambda m: inner.invoke([m]))

    chain.invoke("a")

    assert told(memory) == [[("assistant", "Other."), ("assistant", "Inner.")]]


# -- kinds of messages -----------------------------------------------------------------------------

CALL = ToolCall(name="look", args={"at": "the sky"}, id="call00001", type="tool_call")
LOOP = [HumanMessage("Look!", id="1"), AIMessage("", tool_calls=[CALL], id="2")]


@pytest.mark.parametrize("template", ["chatml", "qwen2.5", "llama3.1", "mistral-v3", "phi3", "gemma2"])
def test_calls_and_results_are_told_on_every_template(template: str) -> None:
    """A call, its result and the answer are read in full, natively where the template can, else in words."""
    with new_memory(template) as memory:
        callback = AgentMemoryCallback(memory)
        result = ToolMessage("Blue, very blue.", tool_call_id="call00001", name="look")

        model("It is blue.").invoke([*LOOP, result], config(callback))
        model("Yes.").invoke(
            [*LOOP, result, AIMessage("It is blue."), HumanMessage("Sure?")], config(callback)
        )

        assert callback.errors == []
        ids = memory._store.token_ids(0, memory.tokens_held)
        text = memory.tokenizer.decode(ids)
        for words in ("Look!", "look", "the sky", "Blue, very blue.", "It is blue.", "Sure?"):
            assert text.count(words) >= 1
        assert text.count("very blue") == 1
        assert len(memory.history()) == 2


@pytest.mark.parametrize("template", ["chatml", "qwen2.5", "mistral-v3", "gemma2"])
def test_a_call_without_a_result_is_told(template: str) -> None:
    """Structured output ends with a call that nothing answers; the next turn follows on every template."""
    with new_memory(template) as memory:
        callback = AgentMemoryCallback(memory)

        model(AIMessage("", tool_calls=[CALL])).invoke("Look!", config(callback))
        model("Good.").invoke("Thanks.", config(callback))

        assert callback.errors == []
        text = memory.tokenizer.decode(memory._store.token_ids(0, memory.tokens_held))
        assert text.count("the sky") == 1 and "Thanks." in text


@pytest.mark.parametrize(
    ("message", "row"),
    [
        (
            HumanMessage([{"type": "text", "text": "See"}, {"type": "image", "url": "x"}]),
            ("user", "See\n[image]"),
        ),
        (HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}]), ("user", "[image]")),
        (ChatMessage("Hi.", role="narrator"), ("user", "Hi.")),
        (ChatMessage("Obey.", role="developer"), ("system", "Obey.")),
        (FunctionMessage("12", name="add"), ("tool", "12")),
        (ToolMessage("Broken.", tool_call_id="1", status="error"), ("tool", "Error: Broken.")),
        (SystemMessage([{"type": "text", "text": "Be kind."}]), ("system", "Be kind.")),
        (
            AIMessage([{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "Ja."}]),
            ("assistant", "Ja."),
        ),
        (HumanMessage("a \ud800 b"), ("user", "a ? b")),
    ],
)
def test_any_message_is_told_as_text(memory: AgentMemory, message: BaseMessage, row: tuple[str, str]) -> None:
    """What another model could take is told in words; what is no text is named."""
    callback = AgentMemoryCallback(memory)

    model("Ok.").invoke([message, HumanMessage("So?")], config(callback))

    assert callback.errors == []
    assert told(memory) == [[row, ("user", "So?"), ("assistant", "Ok.")]]


def test_empty_messages_are_left_out(memory: AgentMemory) -> None:
    """A message and an answer that say nothing leave nothing."""
    llm = model(AIMessage(""))

    llm.invoke([SystemMessage(""), HumanMessage(" ")], config(AgentMemoryCallback(memory)))

    assert told(memory) == []


def test_names_and_ids_are_noted(memory: AgentMemory) -> None:
    """A speaker's name, the message's id and LangGraph's thread are kept with the message."""
    callback = AgentMemoryCallback(memory)

    model().invoke([HumanMessage("Hi.", name="Eve", id="m1")], config(callback, thread_id="t1"))

    said, answer = memory.history()[0].messages
    assert said["name"] == "Eve"
    assert {"id": "m1", "thread": "t1", "origin": "langchain"}.items() <= said["metadata"].items()
    assert answer["metadata"]["id"].startswith("lc_run--")


# -- what is not recorded --------------------------------------------------------------------------


def test_nothing_of_a_failed_run_is_kept(memory: AgentMemory, kind: type[Callback]) -> None:
    """A model that raises, and a chain that fails behind its model, leave nothing."""
    callback = kind(memory)
    broken = PROMPT | model(ValueError("no"))
    refused = PROMPT | model() | RunnableLambda(refuse)

    for chain in (broken, refused):
        with pytest.raises(ValueError, match="no"):
            ask(callback, chain, {"x": "a"})

    assert told(memory) == [] and callback.errors == []


def refuse(_: Any) -> Any:
    """A parser that takes nothing."""
    raise ValueError("no")


def test_retries_leave_one_turn(memory: AgentMemory) -> None:
    """Of a model, and of a chain, that is tried again, the attempt that worked is recorded."""
    attempts = itertools.count()
    picky = RunnableLambda(lambda m: m if next(attempts) else refuse(m))
    whole = (PROMPT | model("One.", "Two.") | picky).with_retry(wait_exponential_jitter=False)
    alone = PROMPT | model(ValueError("no"), "Three.").with_retry(wait_exponential_jitter=False)
    callback = AgentMemoryCallback(memory)

    whole.invoke({"x": "a"}, config(callback))
    alone.invoke({"x": "b"}, config(callback))

    assert [turn[-2:] for turn in told(memory)] == [
        [("user", "a"), ("assistant", "Two.")],
        [("user", "b"), ("assistant", "Three.")],
    ]


def test_fallbacks_leave_one_turn(memory: AgentMemory) -> None:
    """The fallback's answer is recorded, the failed model's and the failed chain's question is not."""
    chain: RunnableWithFallbacks[Any, Any] = (PROMPT | model("No.") | RunnableLambda(refuse)).with_fallbacks(
        [PROMPT | model(ValueError("no")), PROMPT | model("Yes.")]
    )

    chain.invoke({"x": "a"}, config(AgentMemoryCallback(memory)))

    assert told(memory) == [[("system", "Be brief."), ("user", "a"), ("assistant", "Yes.")]]


def test_a_cancelled_task_leaves_nothing(memory: AgentMemory) -> None:
    """A chain that is cancelled while its model thinks is not recorded; the next one is."""

    class Slow(Replying):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
            started.set()
            await asyncio.sleep(60)
            raise AssertionError

    async def main() -> None:
        task = asyncio.create_task((PROMPT | Slow(messages=iter([]))).ainvoke({"x": "a"}, config(callback)))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await (PROMPT | model()).ainvoke({"x": "b"}, config(callback))

    started = asyncio.Event()
    callback = AsyncAgentMemoryCallback(memory)
    asyncio.run(main())

    assert [turn[1:] for turn in told(memory)] == [[("user", "b"), ("assistant", "Hello there.")]]
    assert callback._recorder._places == {}


@pytest.mark.parametrize("mark", ["lc_internal_call", "lc_source"])
def test_calls_of_langchains_own_are_not_recorded(memory: AgentMemory, mark: str) -> None:
    """A summary or another call that LangChain makes for itself is nobody's conversation."""
    model().invoke("Summarize!", config(AgentMemoryCallback(memory), **{mark: "summarization"}))

    assert told(memory) == []


# -- streams ---------------------------------------------------------------------------------------


def test_a_stream_is_recorded_like_a_call(memory: AgentMemory, kind: type[Callback]) -> None:
    """Read to its end, a stream leaves what invoke leaves."""
    chain = PROMPT | model("Hello there, friend.") | StrOutputParser()

    async def read(c: Any) -> None:
        assert [piece async for piece in chain.astream({"x": "a"}, c)]

    if kind is AgentMemoryCallback:
        list(chain.stream({"x": "a"}, config(kind(memory))))
    else:
        asyncio.run(read(config(kind(memory))))

    assert told(memory) == [[("system", "Be brief."), ("user", "a"), ("assistant", "Hello there, friend.")]]


def test_a_sync_stream_closed_early_is_recorded_when_its_model_ends(memory: AgentMemory) -> None:
    """LangChain ends the root chain first and lets the model run on: its whole answer is recorded then, once."""
    order: list[str] = []
    callback = Noting(memory, order)
    stream = (PROMPT | model("Hello there, friend.") | StrOutputParser()).stream({"x": "a"}, config(callback))

    assert next(stream) == "Hello"
    stream.close()  # type: ignore[attr-defined]

    assert order.index("root end") < order.index("model end")
    assert told(memory) == [[("system", "Be brief."), ("user", "a"), ("assistant", "Hello there, friend.")]]
    assert callback._recorder._places == {}


class Noting(AgentMemoryCallback):
    """Notes the order of the two ends."""

    def __init__(self, memory: AgentMemory, order: list[str]) -> None:
        super().__init__(memory)
        self.order = order

    def on_chain_end(self, outputs: Any, **kwargs: Any) -> None:
        if kwargs.get("parent_run_id") is None:
            self.order.append("root end")
        super().on_chain_end(outputs, **kwargs)

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self.order.append("model end")
        super().on_llm_end(response, **kwargs)


@pytest.mark.parametrize("chain", [PROMPT | model("Hello there."), model("Hello there.")])
def test_a_model_stream_closed_early_leaves_nothing(memory: AgentMemory, chain: Any) -> None:
    """Where closing reaches the model, its answer was never whole: nothing is kept."""
    callback = AgentMemoryCallback(memory)
    given: Any = {"x": "a"} if chain is not None and not isinstance(chain, BaseChatModel) else "a"
    stream = chain.stream(given, config(callback))

    next(stream)
    stream.close()

    assert told(memory) == [] and callback.errors == []
    assert callback._recorder._places == {}


@pytest.mark.parametrize("chain", [PROMPT | model("Hello there.") | StrOutputParser(), model("Hello there.")])
def test_an_async_stream_closed_early_leaves_nothing(memory: AgentMemory, chain: Any) -> None:
    """Closing an async stream cancels its model: nothing is kept, and the callback goes on."""
    callback = AsyncAgentMemoryCallback(memory)
    given: Any = "a" if isinstance(chain, BaseChatModel) else {"x": "a"}

    async def main() -> None:
        stream = chain.astream(given, config(callback))
        await anext(stream)
        await stream.aclose()
        await asyncio.sleep(0.05)
        assert told(memory) == []
        await model("Later.").ainvoke("b", config(callback))

    asyncio.run(main())

    assert told(memory) == [[("user", "b"), ("assistant", "Later.")]]
    assert callback._recorder._places == {}


def test_a_streamed_llm_is_recorded(memory: AgentMemory) -> None:
    """A plain LLM's stream leaves its prompt and its completion."""
    llm = FakeStreamingListLLM(responses=["Hello."])

    assert "".join(llm.stream("a", config(AgentMemoryCallback(memory)))) == "Hello."

    assert told(memory) == [[("user", "a"), ("assistant", "Hello.")]]


# -- when it is written ----------------------------------------------------------------------------


def test_a_turn_for_each_answer(memory: AgentMemory) -> None:
    """checkpoint="turn" writes each answer at once, and keeps it when the chain then fails."""
    first, second = model("First."), model("Second.")
    seen: list[int] = []

    def run(text: str) -> None:
        first.invoke(text)
        seen.append(len(memory.history()))
        second.invoke("b")
        refuse(None)

    with pytest.raises(ValueError, match="no"):
        RunnableLambda(run).invoke("a", config(AgentMemoryCallback(memory, checkpoint="turn")))

    assert seen == [1]
    assert told(memory) == [
        [("user", "a"), ("assistant", "First.")],
        [("user", "b"), ("assistant", "Second.")],
    ]


def test_off_writes_at_flush(memory: AgentMemory, kind: type[Callback]) -> None:
    """checkpoint="off" gathers turns, in their order, until flush."""
    callback = kind(memory, checkpoint="off")
    for text in ("a", "b"):
        ask(callback, model(), text)

    assert told(memory) == [] and callback.last_state_id is None
    callback.flush()

    assert [turn[0][1] for turn in told(memory)] == ["a", "b"]
    assert callback.last_state_id == memory.checkpoint()


def test_background_writes_in_order(memory: AgentMemory, kind: type[Callback]) -> None:
    """The worker writes every turn in the order they ended; flush waits for it, close ends it."""
    callback = kind(memory, background=True)
    for n in range(5):
        ask(callback, model(), str(n))

    callback.flush()

    assert [turn[0][1] for turn in told(memory)] == list("01234")
    callback.close()
    model().invoke("late", config(callback))
    assert len(told(memory)) == 5
    assert isinstance(callback.errors[0].error, ClosedError)


def test_flush_gives_up_in_time(memory: AgentMemory) -> None:
    """A flush that is not done in time says so, and loses nothing."""
    callback = AgentMemoryCallback(memory, background=True)
    stream = memory.stream("Hi.", max_new_tokens=4)
    next(stream)
    model().invoke("a", config(callback))

    with pytest.raises(TimeoutError):
        callback.flush(timeout=0.01)
    stream.read()
    callback.close()

    assert [turn[0][1] for turn in told(memory)] == ["Hi.", "a"]


def test_threads_share_a_callback(memory: AgentMemory) -> None:
    """Chains in many threads leave a whole turn each."""
    callback = AgentMemoryCallback(memory)
    chain = PROMPT | model("Yes.")
    threads = [
        threading.Thread(target=chain.invoke, args=({"x": str(n)}, config(callback))) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    turns = [[row for row in turn if row[0] != "system"] for turn in told(memory)]
    assert sorted(turns) == [[("user", str(n)), ("assistant", "Yes.")] for n in range(8)]
    assert callback.errors == []


# -- errors ----------------------------------------------------------------------------------------


def test_errors_are_kept_and_logged(
    memory: AgentMemory,
    kind: type[Callback],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With "warn" the chain works, and the log and `errors` say which agent lost what, and why."""
    # a library that configures logging, such as import-linter in another test, disables the loggers there are
    monkeypatch.setattr(logging.getLogger("langchain_agentmem"), "disabled", False)
    callback = kind(memory)
    memory.close()

    with caplog.at_level(logging.WARNING, "langchain_agentmem"):
        ask(callback, model(), "a")

    (lost,) = callback.errors
    assert lost.agent_id == "ada" and isinstance(lost.error, ClosedError)
    assert any("'ada'" in record.message and "closed" in record.message for record in caplog.records)


def test_a_lost_turn_says_what_it_was(memory: AgentMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written can be written by hand; a chain that sends it again records it after all."""
    callback = AgentMemoryCallback(memory)
    with monkeypatch.context() as patched:
        patched.setattr(AgentMemory, "append", lambda *_, **__: refuse(None))
        model("One.").invoke("a", config(callback))
    assert [message["content"] for message in callback.errors[0].messages] == ["a", "One."]
    assert told(memory) == []

    model("Two.").invoke([HumanMessage("a"), AIMessage("One."), HumanMessage("b")], config(callback))

    assert [text for _, text in told(memory)[0]] == ["a", "One.", "b", "Two."]


def test_an_interrupted_write_is_told_with_the_next(
    memory: AgentMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped by the keyboard in the middle of writing, a turn is not taken for held."""

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    callback = AgentMemoryCallback(memory)
    with monkeypatch.context() as patched:
        patched.setattr(AgentMemory, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            model("One.").invoke([HumanMessage("a", id="1")], config(callback))

    model("Two.").invoke([HumanMessage("a", id="1")], config(callback))

    assert told(memory) == [[("user", "a"), ("assistant", "Two.")]]


def test_raise_fails_the_chain(memory: AgentMemory, kind: type[Callback]) -> None:
    """With "raise" the error reaches the caller, of a sync and of an async chain."""
    callback = kind(memory, on_error="raise")
    memory.close()

    for chain in (PROMPT | model(), PROMPT | model() | StrOutputParser()):
        with pytest.raises(ClosedError):
            ask(callback, chain, {"x": "a"})

    assert len(callback.errors) == 2


def test_an_async_callback_in_a_sync_chain(memory: AgentMemory) -> None:
    """It records; what it raises is swallowed by LangChain, and is found in `errors`."""
    callback = AsyncAgentMemoryCallback(memory, on_error="raise")

    model().invoke("a", config(callback))
    assert told(memory) == [[("user", "a"), ("assistant", "Hello there.")]]
    memory.close()
    model().invoke("b", config(callback))

    assert [type(lost.error) for lost in callback.errors] == [ClosedError]


def test_background_errors_are_raised_by_flush(memory: AgentMemory) -> None:
    """The worker's error is raised once, by flush, and kept."""
    callback = AgentMemoryCallback(memory, background=True, on_error="raise")
    memory.close()
    model().invoke("a", config(callback))

    with pytest.raises(ClosedError):
        callback.flush()
    callback.close()

    assert len(callback.errors) == 1


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, InputError, "agent_id"),
        ({"agent_id": "ada", "memory": True}, InputError, "one of the two"),
        ({"agent_id": "ada", "checkpoint": "always"}, ConfigError, "always"),
        ({"agent_id": "ada", "on_error": "ignore"}, ConfigError, "ignore"),
    ],
)
def test_wrong_options_are_refused(
    memory: AgentMemory, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    """What cannot be used is refused when the callback is made."""
    given = {**options, "memory": memory} if "memory" in options else options

    with pytest.raises(error, match=words):
        AgentMemoryCallback(**given)


# -- blocks of code --------------------------------------------------------------------------------


def test_track_feeds_what_runs_inside(memory: AgentMemory) -> None:
    """Chains inside the block are recorded without being told, batches too; chains behind it are not."""
    chain = PROMPT | model()

    with track(memory) as callback:
        chain.invoke({"x": "a"})
        chain.batch([{"x": "b"}])
    chain.invoke({"x": "c"})

    assert [turn[-2][1] for turn in told(memory)] == ["a", "b"]
    assert callback.last_state_id == memory.checkpoint()


async def test_atrack_feeds_what_runs_inside(memory: AgentMemory) -> None:
    """The async twin, with chains that are awaited; a failing block still keeps what was whole."""

    async def block() -> None:
        async with atrack(memory, background=True):
            await asyncio.gather(*[(PROMPT | model()).ainvoke({"x": str(n)}) for n in range(3)])
            refuse(None)

    with pytest.raises(ValueError, match="no"):
        await block()

    assert sorted(turn[-2][1] for turn in told(memory)) == ["0", "1", "2"]


def test_an_agent_by_name_is_made_and_found_again() -> None:
    """By name, the agent is opened when there is something to write, and let go of between turns."""
    home = InMemoryHome()
    options = {"home": home, "model": language_model(), "config": SMALL}
    callback = AgentMemoryCallback(agent_id="ada", **options)
    assert AgentMemory.list(home) == []

    model().invoke("a", config(callback))
    with AgentMemory.resume("ada", **options) as memory:
        memory.append([{"role": "user", "content": "By hand."}])
    model().invoke("b", config(callback))

    with AgentMemory.resume("ada", **options) as memory:
        assert [turn[0][1] for turn in told(memory)] == ["a", "By hand.", "b"]
        assert callback.last_state_id == memory.checkpoint()
    assert callback.agent_id == "ada"


# -- all at once -----------------------------------------------------------------------------------


def test_a_mixed_crowd_leaves_each_agent_its_own() -> None:
    """Two agents, threads, batches, streams, tasks, failures, cancels: each keeps exactly what ended well for it."""
    home = InMemoryHome()
    options: dict[str, Any] = {"home": home, "model": language_model(), "config": SMALL}
    callbacks = {name: AgentMemoryCallback(agent_id=name, **options) for name in ("ada", "bob")}
    twins = {name: AsyncAgentMemoryCallback(agent_id=name, **options) for name in ("ada", "bob")}
    wanted: dict[str, list[str]] = {"ada": [], "bob": []}
    guard = threading.Lock()

    def good(name: str, *texts: str) -> None:
        with guard:
            wanted[name].extend(texts)

    def work(name: str, number: int) -> None:
        call, text = config(callbacks[name]), f"{name} {number}"
        if number % 4 == 0:
            model().invoke(text, call)
            good(name, text)
        elif number % 4 == 1:
            (PROMPT | model()).batch([{"x": text + "a"}, {"x": text + "b"}], call)
            good(name, text + "a", text + "b")
        elif number % 4 == 2:
            assert list(model().stream(text, call))
            good(name, text)
        else:
            with pytest.raises(ValueError, match="no"):
                (model() | RunnableLambda(refuse)).invoke(text, call)

    async def awaited(name: str, number: int) -> None:
        call, text = config(twins[name]), f"{name} async {number}"
        if number % 3 == 0:
            await model().ainvoke(text, call)
            good(name, text)
        elif number % 3 == 1:
            stream = model().astream(text, call)
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
        else:
            await model(ValueError("no")).with_fallbacks([model()]).ainvoke(text, call)
            good(name, text)

    async def tasks() -> None:
        await asyncio.gather(*[awaited(name, n) for n in range(9) for name in wanted])

    threads = [threading.Thread(target=work, args=(name, n)) for n in range(12) for name in wanted]
    threads.append(threading.Thread(target=asyncio.run, args=(tasks(),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for name, expected in wanted.items():
        with AgentMemory.resume(name, **options, wait=10) as memory:
            asked = [text for turn in told(memory) for role, text in turn if role == "user"]
            pairs = [[role for role, _ in turn if role != "system"] for turn in told(memory)]
        assert sorted(asked) == sorted(expected)
        assert pairs == [["user", "assistant"]] * len(asked)
        assert callbacks[name].errors == twins[name].errors == []
        assert callbacks[name]._recorder._places == twins[name]._recorder._places == {}
