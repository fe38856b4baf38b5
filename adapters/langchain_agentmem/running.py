"""One call, run: plan what is new, write the instructions that are due, decode, hand out chunks.

Joins the planner, the pool and the parser; the only place that talks to :class:`AgentMemory` for a chat model. Every
path of LangChain's (invoke, stream, their async twins) comes through :func:`run`, so all change the memory alike.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from agentmem import AgentMemory, InMemoryHome, InputError, TurnTimeoutError
from langchain_agentmem.calls import Call
from langchain_agentmem.constraints import native_tools, processors, wanted_instructions
from langchain_agentmem.conversation import Conversation, Said, read_conversation
from langchain_agentmem.instructions import Instruction, after_messages, due, in_force
from langchain_agentmem.pool import POOL, Seat
from langchain_agentmem.reconcile import Plan, restart
from langchain_agentmem.redelivery import answered_state, stored_reply
from langchain_agentmem.reply_parser import ReplyParser, parse_reply
from langchain_agentmem.results import Answer, Facts
from langchain_agentmem.tool_choice import NONE
from langchain_agentmem.tool_style import ToolStyle, key_of, recognised, told, tool_style
from langchain_agentmem.transcript import Transcript, plan_on

Chunks = Generator[AIMessageChunk, None, AIMessage]

_ALONE = Plan("ephemeral", "head", (), "", remember=False)
_RESENT = ("extend", "regenerate", "fork", "edited")
"""Plans of callers whose list holds the thread's past, so that it can be read in anew."""


@dataclass(frozen=True)
class Turn:
    """What will be asked of the memory."""

    messages: Sequence[Mapping[str, Any]]
    plan: Plan
    agent_id: str | None
    parent: str | None
    """The state that the turn goes on from."""


def run(call: Call) -> Chunks:
    """Answer a call: yields chunks, returns the whole message. Closed early, the memory stays as it was.

    Raises:
        InputError, HistoryChangedError, AgentBusyError, FingerprintMismatchError, TurnTimeoutError, MissingExtraError.
    """
    conversation = read_conversation(call.messages, thread=call.thread)
    if conversation.said[-1].message["role"] == "assistant":
        raise InputError(
            "the list ends with an AIMessage, so there is nothing to answer; end it with a HumanMessage or ToolMessage"
        )
    if call.ephemeral:
        return (yield from _alone(call, conversation, _ALONE))
    with POOL.borrow(call.opening) as seat:
        style = tool_style(seat.memory.language_model)
        conversation = replace(conversation, said=tuple(recognised(one, style) for one in conversation.said))
        chosen = _planned(call, conversation, seat)
        again = answered_state(_transcript(seat).held, conversation.said, chosen, thread=call.thread)
        if again is not None:
            return (yield from _given_again(call, seat.memory, again))
        if chosen.kind != "unrelated" or chosen.remember:
            return (yield from _with_memory(call, conversation, seat, chosen))
    return (yield from _alone(call, conversation, chosen))


def _alone(call: Call, conversation: Conversation, chosen: Plan) -> Chunks:
    """A call that stands for itself: the whole list is read, and nothing is kept."""
    opening = call.opening
    with AgentMemory.resume(
        "ephemeral",
        model=opening.model,
        home=InMemoryHome(),
        device=opening.device,
        dtype=opening.dtype,
        config=opening.config,
    ) as memory:
        style = tool_style(memory.language_model)
        wanted = wanted_instructions(call, conversation.system, style)
        if _answers_nothing(conversation.said, ()):
            raise _no_call()
        messages = [*_written(wanted), *_told(conversation.said, style)]
        return (yield from _answer(call, memory, Turn(messages, replace(chosen, remember=False), None, None)))


def _planned(call: Call, conversation: Conversation, seat: Seat) -> Plan:
    """Which messages are new, and after which state they come."""
    if call.state_id is not None:
        everything = tuple(range(len(conversation.said)))
        return Plan(kind="explicit", after=call.state_id, new=everything, note="", remember=True)
    return plan_on(
        _transcript(seat), seat.memory, conversation.said, thread=call.thread, policies=call.policies
    )


def _transcript(seat: Seat) -> Transcript:
    """What the memory holds as messages; kept between calls."""
    if "transcript" not in seat.notes:
        seat.notes["transcript"] = Transcript.of(seat.memory, key_of(tool_style(seat.memory.language_model)))
    found: Transcript = seat.notes["transcript"]
    return found


def _with_memory(call: Call, conversation: Conversation, seat: Seat, chosen: Plan) -> Chunks:
    """A call on an agent's memory."""
    memory, transcript = seat.memory, _transcript(seat)
    style = tool_style(memory.language_model)
    parent = _parent(memory, chosen)
    wanted = wanted_instructions(call, conversation.system, style)
    if _system_changed(wanted, _force(seat, parent)):
        if call.system_change == "ignore":
            wanted = [one for one in wanted if one.made != "system"]
        elif call.system_change == "rebuild" and chosen.kind in _RESENT:
            transcript.reread(memory)
            chosen = restart(
                transcript.held,
                conversation.said,
                thread=call.thread,
                lookup=lambda state: transcript.lookup(memory, state),
            )
            parent = _parent(memory, chosen)
    force = _force(seat, parent)
    new = [conversation.said[at] for at in chosen.new]
    before = conversation.said[: chosen.new[0]] if chosen.new else ()
    if _answers_nothing(new, before) and not _ends_with_call(memory, parent, style):
        raise _no_call()
    messages = [*_written(due(wanted, force)), *_told(new, style)]
    remember = call.remember and chosen.remember
    turn = Turn(messages, replace(chosen, remember=remember), memory.agent_id, parent)
    message = yield from _answer(call, memory, turn)
    state = message.response_metadata["agentmem"]["state_id"]
    if state is not None:
        seat.notes["force"] = {state: after_messages(force, messages)}
    return message


def _parent(memory: AgentMemory, chosen: Plan) -> str | None:
    return memory.checkpoint() if chosen.after == "head" else chosen.after


def _system_changed(wanted: Sequence[Instruction], force: Mapping[str, str]) -> bool:
    return "system" in force and any(one.made == "system" for one in due(wanted, force))


def _force(seat: Seat, state: str | None) -> Mapping[str, str]:
    """The instructions in force at a state; the newest state's are remembered between calls."""
    if state is None:
        return {}
    known: dict[str, Mapping[str, str]] = seat.notes.setdefault("force", {})
    if state not in known:
        # a forgotten turn may be the head, but cannot be asked for by its id
        known[state] = in_force(
            seat.memory.history(at="head" if state == seat.memory.checkpoint() else state)
        )
    return known[state]


def _written(instructions: Sequence[Instruction]) -> list[Mapping[str, Any]]:
    return [instruction.message() for instruction in instructions]


def _told(said: Sequence[Said], style: ToolStyle) -> list[Mapping[str, Any]]:
    return [told(one, style) for one in said if not one.blank]


def _answers_nothing(new: Sequence[Said], before: Sequence[Said]) -> bool:
    """Whether the first new message is the result of a call that the list does not make."""
    return bool(new) and new[0].message["role"] == "tool" and not any(said.calls for said in before)


def _no_call() -> InputError:
    return InputError(
        "the list begins with a ToolMessage, but no call was made before it; send the AIMessage with the call first"
    )


def _ends_with_call(memory: AgentMemory, state: str | None, style: ToolStyle) -> bool:
    """Whether the memory's last message makes a call, so that its result may be all that is sent."""
    last = memory.history(limit=1, at=state) if state is not None else []
    if not last or not last[-1].messages:
        return False
    message = last[-1].messages[-1]
    return bool(
        message.get("tool_calls") or parse_reply(str(message.get("content") or ""), style.syntax).calls
    )


def _answer(call: Call, memory: AgentMemory, turn: Turn) -> Chunks:
    """Read the messages, decode the answer, and say both in LangChain's words."""
    model = memory.language_model
    style = tool_style(model)
    deadline = time.monotonic() + call.timeout
    parser = _parser(call, style)
    answer = Answer(output_version=call.output_version)
    with memory.generate_stream(
        turn.messages,
        tools=native_tools(call, style),
        logits_processor=processors(call, model, style),
        remember=turn.plan.remember,
        after=turn.plan.after,
        **call.sampling,
    ) as stream:
        for piece in stream:
            if time.monotonic() > deadline:
                raise TurnTimeoutError(
                    f"the turn took longer than timeout={call.timeout:g} s and was dropped; allow more, or lower max_tokens"
                )
            for part in parser.push(piece):
                yield answer.chunk(part)
    for part in parser.finish():
        yield answer.chunk(part)
    facts = Facts(model.name, turn.agent_id, turn.parent, turn.plan.kind, turn.plan.note)
    yield answer.last_chunk(stream.reply, facts)
    return answer.message()


def _given_again(call: Call, memory: AgentMemory, state_id: str) -> Chunks:
    """The answer that is held already."""
    reply = stored_reply(memory, state_id)
    parser = _parser(call, replace(tool_style(memory.language_model), opens_thinking=False))
    answer = Answer(output_version=call.output_version)
    for part in [*parser.push(reply.text), *parser.finish()]:
        yield answer.chunk(part)
    facts = Facts(
        memory.language_model.name,
        memory.agent_id,
        None,
        "answered",
        "this was answered before; the answer is given again",
    )
    yield answer.last_chunk(reply, facts)
    return answer.message()


def _parser(call: Call, style: ToolStyle) -> ReplyParser:
    looks_for_calls = bool(call.tools) and call.tool_choice != NONE
    return ReplyParser(style.syntax if looks_for_calls else None, opens_thinking=style.opens_thinking)
