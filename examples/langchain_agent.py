"""An agent with tools that is restarted between turns: each turn is a process of its own.

    python examples/langchain_agent.py [--json] [--model NAME] [--home FOLDER]

LangChain's `create_agent` on a LangGraph checkpointer. The thread's messages lie in `threads.db`, the model's keys and
values of the same messages in the agent's memory; LangGraph sends the whole list each time, and only what is new is
read. Small models choose badly: they answer "Done!" and have done nothing, or call and call again. So an answer to a
person that calls no tool is asked for once more, without the choice (`tool_choice="any"`), and after a tool's result
there are no calls (`tool_choice="none"`). A model that was trained for tools needs no such middleware.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_script import conclude, read_options, run_child, run_turns
from pydantic import Field

from langchain_agentmem import AgentMemorySaver, ChatInfLLM

SYSTEM = (
    "You keep a shopping list for the user. "
    "Use a tool first, then tell the user in plain words what is on the list."
)
Item = Annotated[str, Field(max_length=20)]  # a bound that the grammar of forced calls keeps to
TURNS = ("Put milk on my shopping list.", "Put eggs on it too.", "What is on my list now?")


def shopping_tools(path: Path) -> list[Callable[..., str]]:
    """Two tools on a list in a file."""

    def add_item(item: Item) -> str:
        """Put one item on the shopping list."""
        path.write_text(json.dumps([*items_of(path), item]), encoding="utf-8")
        return read_list()

    def read_list() -> str:
        """Say what is on the shopping list."""
        items = ", ".join(items_of(path)) or "nothing"
        return f"On the shopping list: {items}. Now answer the user in one sentence, without JSON."

    return [add_item, read_list]


def items_of(path: Path) -> list[str]:
    """What is on the list so far."""
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


@wrap_model_call
def lead(request: Any, handler: Any) -> Any:
    """Let the model choose once; then make it call a tool for a person's message, and answer after a result."""
    if isinstance(request.messages[-1], ToolMessage):
        return handler(request.override(tool_choice="none"))
    response = handler(request)
    if response.result[-1].tool_calls:
        return response
    return handler(request.override(tool_choice="any"))


def take_turn(text: str, model: str | None, home: Path) -> dict[str, Any]:
    """Everything one process does: open the thread, answer, leave."""
    llm = ChatInfLLM(model=model, home=home, max_tokens=128)
    tools = shopping_tools(home / "list.json")
    with AgentMemorySaver.open(home) as threads:
        agent = create_agent(llm, tools, system_prompt=SYSTEM, middleware=[lead], checkpointer=threads)
        thread: Any = {"configurable": {"thread_id": "kitchen"}}
        messages = agent.invoke({"messages": [HumanMessage(text)]}, thread)["messages"]
    asked = max(place for place, message in enumerate(messages) if isinstance(message, HumanMessage))
    answers = [one for one in messages[asked:] if isinstance(one, AIMessage)]
    details = [answer.usage_metadata["input_token_details"] for answer in answers if answer.usage_metadata]
    return {
        "said": text,
        "calls": [{call["name"]: call["args"]} for answer in answers for call in answer.tool_calls],
        "answer": answers[-1].text.strip(),
        "list": items_of(home / "list.json"),
        "messages": asked + 1,
        "tokens_held": details[0]["cache_read"],
        "tokens_read": sum(detail["cache_creation"] for detail in details),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The script. 0: each turn used a tool and went on from the one before; 1: not so; 2: wrong options."""
    options = read_options(__doc__, arguments)
    if options.child is not None:
        return run_child(lambda: take_turn(options.child, options.model, Path(options.home)))
    turns = run_turns(__file__, TURNS, options)
    held = [turn["tokens_held"] for turn in turns]
    called, resumed = all(turn["calls"] for turn in turns), held == sorted(set(held))
    right = {"milk", "eggs"} == set(turns[-1]["list"])
    # another model may write nonsense on the list; calls and a memory are asked of each
    passed = called and resumed and (right or options.model is not None)
    found = {"turns": turns, "called": called, "resumed": resumed, "right": right}
    return conclude(options, found, passed=passed)


if __name__ == "__main__":
    sys.exit(main())
