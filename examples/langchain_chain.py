"""A chain that remembers: what it was told in one process, it knows in the next.

    python examples/langchain_chain.py [--json] [--model NAME] [--home FOLDER]

`prompt | llm | parser`, as in any LangChain program: the memory is the chat model's own. Nothing is handed from
the first process to the second but the folder the agent lives in, and the second one reads only what is new.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_script import conclude, read_options, run_child, run_turns

from langchain_agentmem import ChatInfLLM

TOLD = "My dog is called Biscuit, and he is afraid of thunder."
ASKED = "What is my dog called?"
NAME = "Biscuit"


def chain(model: str | None, home: str) -> Runnable[dict[str, str], str]:
    """A prompt, a chat model with a memory, a parser."""
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You are a friendly assistant. Answer in one sentence."), ("user", "{text}")]
    )
    llm = ChatInfLLM(model=model, home=home, agent_id="ada", max_tokens=40)
    return prompt | llm | StrOutputParser()


def take_turn(text: str, model: str | None, home: str) -> dict[str, Any]:
    """Everything one process does: one call of the chain, with LangChain's own count of what it cost."""
    with get_usage_metadata_callback() as counted:
        answer = chain(model, home).invoke({"text": text})
    (usage,) = counted.usage_metadata.values()
    details = usage["input_token_details"]
    held, read = details["cache_read"], details["cache_creation"]
    return {"said": text, "answer": answer.strip(), "tokens_held": held, "tokens_read": read}


def main(arguments: Sequence[str] | None = None) -> int:
    """The script. 0: the second process knew; 1: it did not, or an error; 2: the options cannot be used."""
    options = read_options(__doc__, arguments)
    if options.child is not None:
        return run_child(lambda: take_turn(options.child, options.model, options.home))
    turns = run_turns(__file__, (TOLD, ASKED), options)
    first, second = turns
    resumed = second["tokens_held"] >= first["tokens_held"] + first["tokens_read"]
    answered = NAME in second["answer"]
    # another model may be too weak to answer; that the memory was there is asked of each
    passed = resumed and (answered or options.model is not None)
    return conclude(options, {"turns": turns, "resumed": resumed, "answered": answered}, passed=passed)


if __name__ == "__main__":
    sys.exit(main())
