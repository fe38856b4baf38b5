"""One bot, two users at the same time: neither sees what the other said.

    python examples/langchain_two_users.py [--json] [--model NAME] [--home FOLDER]

There is one bot object for all. Whose memory a call is for is said with the call, by `configurable.agent_id`; a web
handler would put the name of the logged-in user there. Both answers stream at once, in one event loop, on one copy of
the weights.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from langchain_script import conclude, home_of, plain_errors, read_options

from agentmem import AgentMemory
from langchain_agentmem import ChatInfLLM, close_memories

FACTS = {
    "ada": "I am allergic to walnuts.",
    "ben": "I keep two parrots called Flip and Flap.",
}
QUESTION = "What did I tell you about myself?"


def make_bot(model: str | None, home: str) -> Runnable[dict[str, str], str]:
    """One object for every user; it names no agent."""
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You are a friendly assistant. Answer in one sentence."), ("user", "{text}")]
    )
    return prompt | ChatInfLLM(model=model, home=home, max_tokens=32) | StrOutputParser()


async def answer(bot: Runnable[dict[str, str], str], user: str, text: str, arrived: list[str]) -> str:
    """Stream an answer to one user; ``arrived`` notes whose piece came when."""
    pieces = []
    async for piece in bot.astream({"text": text}, {"configurable": {"agent_id": user}}):
        pieces.append(piece)
        arrived.append(user[0])
    return "".join(pieces).strip()


async def talk(bot: Runnable[dict[str, str], str]) -> tuple[dict[str, list[str]], str]:
    """Both users tell a fact at once, then both ask at once."""
    answers: dict[str, list[str]] = {user: [] for user in FACTS}
    arrived: list[str] = []
    for said in (FACTS, dict.fromkeys(FACTS, QUESTION)):
        both = await asyncio.gather(*(answer(bot, user, text, arrived) for user, text in said.items()))
        for user, one in zip(said, both, strict=True):
            answers[user].append(one)
    return answers, "".join(arrived)


def remembered(user: str, home: str) -> list[str]:
    """All that the user's memory holds, word for word."""
    with AgentMemory.resume(user, home=home, read_only=True) as memory:
        return [str(message["content"]) for turn in memory.history() for message in turn.messages]


def main(arguments: Sequence[str] | None = None) -> int:
    """The script. 0: each memory holds its user's facts alone; 1: it does not, or an error; 2: wrong options."""
    options = read_options(__doc__, arguments)
    with home_of(options) as home, plain_errors():
        answers, arrived = asyncio.run(talk(make_bot(options.model, home)))
        held = {user: remembered(user, home) for user in FACTS}
        close_memories()
    passed = all(_alone(user, held[user]) for user in FACTS)
    if not options.json:
        for user, fact in FACTS.items():
            print(f"{user}: {fact}\n  bot: {answers[user][0]}")
            print(f"{user}: {QUESTION}\n  bot: {answers[user][1]}")
            print(f"  held for {user}: {held[user]}\n")
        print(f"Whose piece came when: {arrived}")
        print("Neither memory holds the other's facts." if passed else "The memories are mixed up!")
    users = {user: {"answers": answers[user], "memory": held[user]} for user in FACTS}
    return conclude(options, {"users": users, "arrived": arrived}, passed=passed)


def _alone(user: str, memory: Sequence[str]) -> bool:
    """Whether a memory holds what its user said, and nothing that another said."""
    others = [fact for name, fact in FACTS.items() if name != user]
    return FACTS[user] in memory and not any(fact in text for fact in others for text in memory)


if __name__ == "__main__":
    sys.exit(main())
