"""Sampling: options are checked, draws repeat, and transformers' processors do what they do there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from agentmem.engine.sampling import Sampler, SamplingOptions
from agentmem.errors import InputError, ModelError

VOCABULARY = 50


def logits(seed: int = 0) -> torch.Tensor:
    """Some logits (V,)."""
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3


def draws(options: SamplingOptions, count: int = 20, **more: Any) -> list[int]:
    """A reply drawn from fixed logits, new ones at each step."""
    sampler = Sampler(options, **{"prompt_ids": [1, 2, 3], **more})
    return [sampler.next(logits(step)) for step in range(count)]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", True),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("top_k", 2.0),
        ("repetition_penalty", 0.0),
        ("seed", -1),
        ("seed", 1 << 63),
        ("stop", ("a", "")),
        ("stop", (1,)),
        ("stop", 5),
        ("stop", None),
    ],
)
def test_options_out_of_range_are_refused(option: str, value: object) -> None:
    """The error names the option, the value and what would do."""
    with pytest.raises(InputError, match=f"^{option}=.*; give "):
        SamplingOptions(**{option: value})


def test_one_stop_string_may_stand_by_itself() -> None:
    """A single string, a list and a tuple all become a tuple."""
    assert SamplingOptions(stop="ab").stop == ("ab",)  # type: ignore[arg-type]
    assert SamplingOptions(stop=["a", "b"]).stop == ("a", "b")  # type: ignore[arg-type]


def test_greedy_takes_the_likeliest() -> None:
    """Temperature 0 draws nothing."""
    assert draws(SamplingOptions()) == [int(logits(step).argmax()) for step in range(20)]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1 << 62),
    temperature=st.floats(0.1, 3),
    top_p=st.floats(0.1, 1),
    top_k=st.integers(0, 60),
)
def test_a_seed_repeats_the_reply(seed: int, temperature: float, top_p: float, top_k: int) -> None:
    """The same options, prompt and logits give the same tokens; global random state plays no part."""
    options = SamplingOptions(seed=seed, temperature=temperature, top_p=top_p, top_k=top_k)
    first = draws(options)
    torch.rand(3)

    assert draws(options) == first


def test_without_a_seed_the_one_drawn_is_told() -> None:
    """Two samplers differ, and each can be repeated from the seed it reports."""
    options = SamplingOptions(temperature=1.0)
    one, two = Sampler(options, [1]), Sampler(options, [1])
    drawn = [one.next(logits(step)) for step in range(20)]
    again = draws(SamplingOptions(temperature=1.0, seed=one.seed), prompt_ids=[1])

    assert one.seed != two.seed
    assert again == drawn


@pytest.mark.parametrize("option", [{"top_k": 1}, {"top_p": 1e-6}])
def test_narrowest_filters_are_greedy(option: dict[str, Any]) -> None:
    """Keeping one token leaves nothing to chance."""
    assert draws(SamplingOptions(temperature=2.0, **option)) == draws(SamplingOptions())


def test_top_k_keeps_to_the_likeliest() -> None:
    """Every token drawn is among the k likeliest of its step, and more than one of them is drawn."""
    ranks = []
    for step, token in enumerate(draws(SamplingOptions(temperature=3.0, top_k=4, seed=1), count=60)):
        ranks.append(int((logits(step) > logits(step)[token]).sum()))

    assert max(ranks) < 4
    assert len(set(ranks)) > 1


def test_repetition_penalty_covers_prompt_and_reply() -> None:
    """A token of the prompt, and one just drawn, lose to the next best."""
    scores = torch.tensor([1.0, 1.2, 1.1, 0.9])
    sampler = Sampler(SamplingOptions(repetition_penalty=2.0), prompt_ids=[1])

    assert [sampler.next(scores) for _ in range(3)] == [2, 0, 3]


def test_extra_processors_are_called_like_transformers() -> None:
    """They see the ids so far (1, n) and the scores (1, V), and what they give back counts."""
    seen = []

    def only_seven(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append((input_ids.tolist(), scores.shape))
        masked = torch.full_like(scores, float("-inf"))
        masked[:, 7] = 0
        return masked

    assert draws(SamplingOptions(temperature=1.0), count=2, extra_processors=[only_seven]) == [7, 7]
    assert seen == [([[1, 2, 3]], (1, VOCABULARY)), ([[1, 2, 3, 7]], (1, VOCABULARY))]


def test_processors_that_forbid_everything_are_an_error() -> None:
    """Nothing is drawn from nothing."""

    def forbid(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return torch.full_like(scores, float("-inf"))

    sampler = Sampler(SamplingOptions(), [1], [forbid])

    with pytest.raises(InputError, match="left no token"):
        sampler.next(logits())


@pytest.mark.parametrize("extra", [5, "top", [5], lambda _, scores: scores])
def test_processors_are_callables_in_a_list(extra: Any) -> None:
    """Anything else is refused before a token is drawn."""
    with pytest.raises(InputError, match="callable"):
        Sampler(SamplingOptions(), [1], extra)


@pytest.mark.parametrize("given", [None, torch.zeros(3), torch.zeros(2, 4)])
def test_processors_give_scores_back(given: Any) -> None:
    """A processor that returns nothing, or another shape, is named as the caller's mistake."""
    sampler = Sampler(SamplingOptions(), [1], [lambda *_: given])

    with pytest.raises(InputError, match=r"\(1, 4\)"):
        sampler.next(torch.zeros(4))


def test_logits_that_are_not_numbers_are_an_error() -> None:
    """NaN from the model is told, not drawn from."""
    with pytest.raises(ModelError, match="not finite"):
        Sampler(SamplingOptions(), [1]).next(torch.full((5,), float("nan")))


def test_a_full_reply_takes_no_more() -> None:
    """max_new_tokens is a limit."""
    sampler = Sampler(SamplingOptions(max_new_tokens=1), [1])
    sampler.next(logits())

    with pytest.raises(InputError, match="max_new_tokens=1"):
        sampler.next(logits())


def test_logits_are_left_alone_whatever_their_dtype() -> None:
    """The model's logits are not written to, and bfloat16 is sampled in float32."""
    scores = logits().to(torch.bfloat16)
    before = scores.clone()
    sampler = Sampler(
        SamplingOptions(temperature=0.7, repetition_penalty=1.3, top_k=5, top_p=0.9, seed=1), [1]
    )
    sampler.next(scores)

    assert torch.equal(scores, before)


def test_the_reply_is_the_one_of_transformers_generate() -> None:
    """Greedy with a repetition penalty: token for token what generate gives on the same model."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=VOCABULARY, eos_token_id=None, bos_token_id=None, **sizes)
    )
    prompt = torch.tensor([[5, 6, 7, 8]])
    expected = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=12,
        do_sample=False,
        repetition_penalty=1.5,
        pad_token_id=0,
    )
    sampler = Sampler(SamplingOptions(max_new_tokens=12, repetition_penalty=1.5), prompt[0].tolist())
    ids = prompt[0].tolist()
    with torch.no_grad():
        for _ in range(12):
            ids.append(sampler.next(model(torch.tensor([ids])).logits[0, -1]))

    assert ids == expected[0].tolist()


def test_barred_ids_are_not_drawn() -> None:
    """What may not be drawn this time gives way to the next likeliest, and may be drawn later."""
    scores = torch.tensor([0.0, 5.0, 4.0])
    sampler = Sampler(SamplingOptions(), [0])

    assert [sampler.next(scores, barred=[1]), sampler.next(scores)] == [2, 1]
    assert scores.tolist() == [0.0, 5.0, 4.0]
