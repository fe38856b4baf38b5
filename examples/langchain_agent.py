"""An agent with tools that is restarted between turns: each turn is a process of its own.

    python examples/langchain_agent.py [--json] [--model NAME] [--home FOLDER]

LangChain's `create_agent` on a LangGraph checkpointer. The thread's messages lie in `threads.db`, the model's keys and
values of the same messages in the agent's memory; LangGraph sends the whole list each time, and only what is new is
read. Small models choose badly: they answer "Done!" and have done nothing. So an answer to a person that calls no tool
is asked for once more, without the choice (`tool_choice="any"`). A model trained for tools needs no such middleware.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from langchain.agents import create_agent
from langchain.agents.middleware import ModelCallLimitMiddleware, wrap_model_call
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import BaseTool, tool
from langchain_script import home_of, in_a_new_process, read_options, run_child
from pydantic import Field

from langchain_agentmem import AgentMemorySaver, ChatInfLLM

SYSTEM = "You keep a shopping list for the user, with your tools. Answer in one short sentence."
Item = Annotated[str, Field(max_length=20)]  # a bound that the grammar of forced calls keeps to
TURNS = ("Put milk on my shopping list.", "Put eggs on it too.", "What is on my list now?")


def shopping_tools(path: Path) -> list[BaseTool]:
    """Two tools on a list in a file."""

    @tool
    def add_item(item: Item) -> str:
        """Put one item on the shopping list."""
        path.write_text(json.dumps([*_items(path), item]), encoding="utf-8")
        return f"The list is now: {', '.join(_items(path))}"

    @tool
    def read_list() -> str:
        """Say what is on the shopping list."""
        return f"The list is: {', '.join(_items(path)) or 'empty'}"

    return [add_item, read_list]


@wrap_model_call
def insist(request: Any, handler: Any) -> Any:
    """Let the model choose; if it answers a person without a tool, ask once more and leave no choice."""
    response = handler(request)
    if isinstance(request.messages[-1], HumanMessage) and not response.result[-1].tool_calls:
        return handler(request.override(tool_choice="any"))
    return response


def take_turn(text: str, model: str | None, home: Path) -> dict[str, Any]:
    """Everything one process does: open the thread, answer, leave."""
    llm = ChatInfLLM(model=model, home=home, max_tokens=128)
    middleware: Any = [insist, ModelCallLimitMiddleware(run_limit=4)]
    tools = shopping_tools(home / "list.json")
    with AgentMemorySaver.open(home) as threads:
        agent = create_agent(llm, tools, system_prompt=SYSTEM, middleware=middleware, checkpointer=threads)
        thread: Any = {"configurable": {"thread_id": "kitchen"}}
        messages = agent.invoke({"messages": [HumanMessage(text)]}, thread)["messages"]
    asked = max(place for place, message in enumerate(messages) if isinstance(message, HumanMessage))
    answers = [one for one in messages[asked:] if isinstance(one, AIMessage)]
    details = [answer.usage_metadata["input_token_details"] for answer in answers if answer.usage_metadata]
    return {
        "said": text,
        "calls": [{call["name"]: call["args"]} for answer in answers for call in answer.tool_calls],
        "answer": answers[-1].text.strip(),
        "messages": asked + 1,
        "tokens_held": details[0]["cache_read"],
        "tokens_read": sum(detail["cache_creation"] for detail in details),
    }


def _items(path: Path) -> list[str]:
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def main(arguments: Sequence[str] | None = None) -> int:
    """The script. 0: each turn used a tool and went on from the one before; 1: not so; 2: wrong options."""
    options = read_options(__doc__, arguments)
    if options.child is not None:
        return run_child(lambda: take_turn(options.child, options.model, Path(options.home)))
    turns: list[dict[str, Any]] = []
    with home_of(options) as home:
        for text in TURNS:
            turns.append(in_a_new_process(__file__, text, options, home))
            if not options.json:
                show(len(turns), turns[-1])
    held = [turn["tokens_held"] for turn in turns]
    passed = all(turn["calls"] for turn in turns) and held == sorted(set(held))
    if options.json:
        print(json.dumps({"turns": turns, "passed": passed}, indent=2))
    return 0 if passed else 1


def show(number: int, turn: dict[str, Any]) -> None:
    """Print one turn."""
    print(f"process {number}: {turn['messages']} messages sent, {turn['tokens_held']} tokens held", end="")
    print(f", {turn['tokens_read']} read\n  you: {turn['said']}")
    print("".join(f"  call: {json.dumps(call)}\n" for call in turn["calls"]), end="")
    print(f"  bot: {turn['answer']}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
