"""What the probe finds out about a template, and which templates it refuses."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from agentmem.engine.template import ChatTemplate
from agentmem.errors import TemplateError
from support.templates import CASES, CHATML, tokenizer_for


def with_template(template: str) -> PreTrainedTokenizerFast:
    """ChatML's tokenizer with another template."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer_for("chatml").backend_tokenizer)
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("qwen2.5", {"<|im_end|>", "<|endoftext|>"}),
        ("llama3", {"<|eot_id|>", "<|end_of_text|>"}),
        ("gemma2", {"<end_of_turn>", "<eos>"}),
        ("phi3", {"<|end|>", "<|endoftext|>"}),
        ("glm4", {"<|user|>", "<|endoftext|>"}),
        ("mistral-v0.1", {"</s>"}),
        ("harmony", {"<|return|>", "<|call|>", "<|endoftext|>"}),
    ],
)
def test_stop_tokens(name: str, stops: set[str]) -> None:
    """A reply ends at the tokenizer's end, at the template's closing token, and at well-known ends."""
    tokenizer = tokenizer_for(name)

    assert set(tokenizer.convert_ids_to_tokens(sorted(ChatTemplate(tokenizer).stop_ids))) == stops


def test_stop_tokens_of_the_generation_config_are_added() -> None:
    """Ids given by the model's own configuration end a reply, too."""
    assert 7 in ChatTemplate(tokenizer_for("chatml"), eos_ids=[7]).stop_ids


@pytest.mark.parametrize(
    ("name", "system", "late", "merged"),
    [
        ("chatml", True, True, set()),
        ("llama3.1", True, True, set()),
        ("gemma2", False, False, {"system", "user", "assistant"}),
        ("gemma3", True, False, {"system", "user", "assistant"}),
        ("llama2", True, False, {"system", "user", "assistant"}),
        ("r1", True, False, {"system"}),
        ("phi3-first", False, False, {"system"}),
    ],
)
def test_facts(name: str, system: bool, late: bool, merged: set[str]) -> None:
    """Where system messages may stand, and which roles must take turns."""
    facts = ChatTemplate(tokenizer_for(name)).facts

    assert (facts.system_role, facts.late_system, set(facts.merged_roles)) == (system, late, merged)


def test_digest_tells_templates_apart() -> None:
    """Equal templates have equal digests, different ones different digests."""
    digests = {ChatTemplate(tokenizer_for(name)).digest for name in set(CASES) - {"none-pieces"}}

    assert len(digests) == len(CASES) - 1
    assert ChatTemplate(with_template(CHATML)).digest == ChatTemplate(tokenizer_for("chatml")).digest


@pytest.mark.parametrize(
    ("template", "match"),
    [
        ("{{ raise_exception('never') }}", "cannot write"),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", "cannot write"),
        (
            "{% for m in messages %}{{ m.role + m.content + messages | length | string }}{% endfor %}",
            "depend",
        ),
        ("{% for m in messages %}{{ m.role + messages[0].content + m.content }}{% endfor %}", "depend"),
        ("{% for m in messages %}{{ m.role", "cannot write"),
    ],
)
def test_templates_that_cannot_be_kept_turn_by_turn_are_refused(template: str, match: str) -> None:
    """A template that fails, leaves contents out, or looks at the past is refused at construction."""
    with pytest.raises(TemplateError, match=match):
        ChatTemplate(with_template(template))
