"""InfiniteBench's KV retrieval: one UUID's value in a JSON object of UUIDs (arXiv 2402.13718).

The official prompt, as InfLLM's and EM-LLM's repositories have it, names the wanted key before the JSON and again
after it, so that InfLLM's 128 initial tokens hold the key while the JSON is read. It is one question a history; the
wanted key sweeps the object from front to back over the histories. An agent is asked after the fact: the question-last form
gives the JSON alone, then the whole instruction, and asks 25 evenly spread keys of one object. The object has as
many pairs as fit (published: 2,500). The value must be one of the answer's words once marks are spaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from benchmarks.recall.tasks.fitted import Asked, Draft, FittedTask, Place, Wording
from benchmarks.recall.tasks.judges import key_value_word
from benchmarks.recall.tasks.words import unlike, uuid4

_QUESTION = 'Key: "{key}"\nThe value associated with the specified key is: '
_OFFICIAL = Wording(
    before='Extract the value corresponding to the specified key "{key}" in the JSON object below.\n\n',
    after=_QUESTION,
    max_new_tokens=100,
)
_QUESTION_LAST = Wording(
    before="",
    after="Extract the value corresponding to the specified key in the JSON object above.\n\n" + _QUESTION,
    max_new_tokens=100,
)


@dataclass(frozen=True)
class JsonPairs:
    """A JSON object of UUID pairs; `asked` evenly spread keys are asked for, or one that moves on with each history."""

    name: str
    asked: int

    def draft(self, place: Place, units: int) -> Draft:
        """An object of `units` pairs."""
        ids = unlike(place.chance("pairs"), uuid4)
        pairs = [(next(ids), next(ids)) for _ in range(units)]
        texts = [f'"{key}": "{value}"' for key, value in pairs]
        if self.asked > 1:
            wanted = [index * units // self.asked for index in range(self.asked)]
        else:
            wanted = [place.index * units // place.count]
        context = "JSON data:\n{" + ", ".join(texts) + "}"
        return Draft(context, tuple(self._asked(place, pairs, index) for index in dict.fromkeys(wanted)))

    def _asked(self, place: Place, pairs: list[tuple[str, str]], index: int) -> Asked:
        key, value = pairs[index]
        drawn = place.chance(f"choices-{key}").sample(pairs, min(4, len(pairs)))
        others = [other for _, other in drawn if other != value]
        return Asked(
            slots={"key": key},
            answers=(value,),
            evidence=(f'"{key}": "{value}"',),
            choices=(value, *islice(others, 3)),
        )


def kv_retrieval() -> FittedTask:
    """The official prompt, key first."""
    return FittedTask("kv_retrieval", JsonPairs("kv_retrieval", 1), _OFFICIAL, key_value_word)


def kv_retrieval_question_last() -> FittedTask:
    """The key named only after the object; 25 questions a history."""
    source = JsonPairs("kv_retrieval", 25)
    return FittedTask("kv_retrieval_question_last", source, _QUESTION_LAST, key_value_word)
