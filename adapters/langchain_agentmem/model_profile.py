"""What the chat model can do, in the terms that LangChain's agents and middleware ask for.

Says nothing it does not know: building a chat model loads no weights, so what only the weights can tell is said
only where they are at hand.
"""

from __future__ import annotations

from importlib.util import find_spec

from langchain_core.language_models import ModelProfile

from agentmem import LanguageModel, MemoryConfig

MEASURED_TOKENS = 32_000
"""The longest history that reading and replying were measured on, see ``docs/LOG.md``. The memory itself has no end,
but middleware that keeps a share of the context needs a number, and this one is known to work."""


def model_profile(
    max_output_tokens: int,
    *,
    language_model: LanguageModel | None = None,
    config: MemoryConfig | None = None,
) -> ModelProfile:
    """The profile of a chat model.

    Args:
        max_output_tokens: at which a reply ends at the latest.
        language_model: the weights, if they are loaded; adds what their chat template can do.
        config: how much is attended to; None: the default.
    """
    profile = ModelProfile(
        max_input_tokens=_max_input_tokens(config or MemoryConfig()),
        max_output_tokens=max_output_tokens,
        open_weights=True,
        text_inputs=True,
        image_inputs=False,
        image_url_inputs=False,
        pdf_inputs=False,
        audio_inputs=False,
        video_inputs=False,
        image_tool_message=False,
        pdf_tool_message=False,
        attachment=False,
        text_outputs=True,
        image_outputs=False,
        audio_outputs=False,
        video_outputs=False,
        tool_calling=True,
        tool_call_streaming=True,
        tool_choice=find_spec("llguidance") is not None,  # a forced call needs the extra `structured`
        # create_agent takes True for "a schema and tools in one call", and the schema would win: no tool were ever
        # called. With False it asks for the schema as one more tool, which is exactly as well constrained.
        structured_output=False,
        temperature=True,
    )
    if language_model is not None:
        facts = language_model.template.facts
        profile["name"] = language_model.name
        profile["reasoning_output"] = facts.opens_thinking or facts.drops_thinking
        profile["mid_conversation_system_messages"] = facts.late_system
    return profile


def _max_input_tokens(config: MemoryConfig) -> int:
    """A memory that recalls nothing sees its window alone, or what it attends to in full."""
    if config.recall_tokens:
        return MEASURED_TOKENS
    return max(config.budget, config.dense_limit)
