"""The options of a memory: one frozen object, checked once, unknown keys refused.

Knows nothing of tensors, models or files. What must also fit the model (its trained length) is
checked by the engine, which knows it.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agentmem.errors import ConfigError


class MemoryConfig(BaseModel):
    """How much of the past a step may see, and how it is chosen. Lengths are in tokens.

    The *budget* is ``sink_tokens + window_tokens + recall_tokens``: what attention sees of the past
    in one step, however long the history is (InfLLM, arXiv 2402.04617).

    Raises:
        ConfigError: an option is unknown or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sink_tokens: int = Field(64, ge=0, le=65_536)
    """The first tokens, always attended."""
    window_tokens: int = Field(1024, ge=1, le=1 << 20)
    """The newest tokens, always attended."""
    recall_tokens: int = Field(1536, ge=0, le=1 << 20)
    """Room for recalled blocks; a multiple of ``block_tokens``."""
    block_tokens: int = Field(16, ge=1, le=4096)
    """Tokens in a block, the unit of retrieval."""
    chunk_tokens: int = Field(512, ge=1, le=65_536)
    """Tokens forwarded at once while reading; one selection each. Stored with the agent."""
    dense_tokens: int | None = Field(None, ge=0)
    """A chunk that ends at or before this attends to everything. None: the budget."""
    selector: str = "two-stage-pairs"
    """Which rule chooses the blocks; see :mod:`agentmem.memory.selectors`."""
    positions: Literal["ordered", "infllm", "lm-infinite", "streaming"] = "ordered"
    """How the past is placed: in token order at consecutive positions, or as a reference mode does;
    see :mod:`agentmem.memory.placements`."""
    rope: Literal["model", "linear", "ntk"] = "model"
    """Whose rotation: the model's own, or one stretched by ``rope_factor`` as position interpolation or
    NTK-aware scaling do, for reference modes; see :mod:`agentmem.memory.rope_scaling`."""
    rope_factor: float = Field(1.0, ge=1.0, le=1024.0)
    """How many times the trained length a stretched rotation reaches; 1 for the model's own."""
    reselect_every: int = Field(64, ge=0, le=65_536)
    """While decoding, choose blocks anew after this many tokens; 0: for every token."""
    kv_dtype: Literal["model", "int8"] = "model"
    """How K/V are stored: in the model's own dtype, exactly, or rounded to one byte an element, which halves the
    bytes of bfloat16. Stored with the agent; fixed from then on. See :mod:`agentmem.memory.int8_log`."""
    stamp: str | None = None
    """A strftime pattern put before each user message: the model's only clock. None: no stamp."""
    keep_thinking: bool = True
    """Keep a reply's thinking text in the memory; False re-reads the reply without it."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from None

    @model_validator(mode="after")
    def _check_together(self) -> MemoryConfig:
        if self.recall_tokens % self.block_tokens:
            raise ValueError(
                f"recall_tokens={self.recall_tokens} is not a multiple of block_tokens={self.block_tokens}"
            )
        if self.stamp is not None and "%" not in self.stamp:
            raise ValueError(f"stamp={self.stamp!r} holds no strftime field such as %Y-%m-%d")
        if (self.rope == "model") != (self.rope_factor == 1.0):
            raise ValueError(
                f"rope={self.rope!r} with rope_factor={self.rope_factor}: a stretched rotation needs a factor "
                "above 1, the model's own has none"
            )
        if self.positions != "ordered":
            self._check_reference()
        return self

    def _check_reference(self) -> None:
        """What the reference placements ask for; the window slides token by token there."""
        step = self.chunk_tokens + self.reselect_every
        if step > self.window_tokens:
            raise ValueError(
                f"positions={self.positions!r}: chunk_tokens + reselect_every = {step} exceeds "
                f"window_tokens={self.window_tokens}; a chunk must fit the window"
            )
        if self.recall_tokens and self.positions != "infllm":
            raise ValueError(
                f"positions={self.positions!r} recalls nothing; set recall_tokens=0, got {self.recall_tokens}"
            )

    @property
    def budget(self) -> int:
        """Tokens of the past that one step may attend to."""
        return self.sink_tokens + self.window_tokens + self.recall_tokens

    @property
    def dense_limit(self) -> int:
        """The longest context that is attended to in full."""
        return self.budget if self.dense_tokens is None else self.dense_tokens

    @property
    def recall_blocks(self) -> int:
        """Blocks that fit ``recall_tokens``."""
        return self.recall_tokens // self.block_tokens

    def changed(self, **options: Any) -> MemoryConfig:
        """A copy with some options changed, checked again."""
        return MemoryConfig(**{**self.model_dump(), **options})


def _explain(error: ValidationError) -> str:
    """One line per problem: the option, what was wrong, the value, and the options there are."""
    rows = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]) or "options"
        if problem["type"] == "extra_forbidden":
            known = ", ".join(MemoryConfig.model_fields)
            rows.append(f"{name}: unknown option; the options are {known}")
        elif problem["loc"]:
            rows.append(f"{name}: {problem['msg']}, got {problem['input']!r}")
        else:
            rows.append(str(problem["msg"]).removeprefix("Value error, "))
    return "MemoryConfig: " + "; ".join(rows)
