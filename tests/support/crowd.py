"""One of several processes that talk to one agent at the same time through LangChain.

Run as ``python -m support.crowd HOME MODEL NAME COUNT``: says so many things to the agent "ada".
"""

from __future__ import annotations

import sys

import torch

from langchain_agentmem import ChatInfLLM


def main(home: str, model: str, name: str, count: int) -> None:
    """Say what this process has to say."""
    torch.set_num_threads(1)
    llm = ChatInfLLM(model=model, home=home, agent_id="ada", max_tokens=4)
    for number in range(count):
        llm.invoke(f"{name} says {number}.")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
