"""Every error agentmem raises on purpose.

Knows nothing but Python. Each message says what was wrong, the value, and what to do about it.

    AgentMemError
    ├── ConfigError (ValueError)          an option is unknown, out of range, or does not fit the model
    ├── InputError (ValueError)           a message, role or argument cannot be used
    ├── ShapeError (ValueError)           a tensor has the wrong shape or dtype
    ├── HistoryChangedError (ValueError)  a caller's messages contradict what the memory holds
    ├── TurnTimeoutError (TimeoutError)   a turn took longer than it was given; it was dropped
    ├── MissingExtraError (ImportError)   an optional dependency is not installed
    ├── ClosedError                       the memory, store or model was closed
    ├── ModelError
    │   ├── ModelNotFoundError            the name resolves to nothing
    │   ├── DownloadError                 no source could deliver the file
    │   ├── HashMismatchError             the bytes are not the pinned ones (and were removed)
    │   ├── UnsupportedModelError         the architecture cannot be bound exactly
    │   └── TemplateError                 the chat template cannot express the conversation
    └── StoreError
        ├── AgentNotFoundError            no agent of that name
        ├── AgentExistsError              an agent of that name is already there
        ├── AgentBusyError                another writer holds the agent
        ├── StaleWriterError              this writer was fenced off by a later one
        ├── StaleReaderError              what this reader looked at was forgotten or moved meanwhile
        ├── ReadOnlyError                 the agent was opened read-only
        ├── FingerprintMismatchError      the stored memory belongs to another model
        ├── KeyNeededError                it is encrypted and no key was given, or the other way round
        ├── WrongKeyError                 the key does not open it
        ├── FormatVersionError            written by a newer agentmem
        ├── DamagedError                  stored bytes are not what was written
        ├── StateNotFoundError            no state of that id
        ├── StateForgottenError           the state existed, and was forgotten
        ├── RebuildNeededError            what should be forgotten sits in the sinks
        └── ArchiveError                  an export cannot be read or written
"""

from __future__ import annotations

from collections.abc import Mapping


class AgentMemError(Exception):
    """Base class of every error raised by agentmem."""


class ConfigError(AgentMemError, ValueError):
    """An option is unknown, out of range, or does not fit the model."""


class InputError(AgentMemError, ValueError):
    """A message, role or argument cannot be used."""


class ShapeError(AgentMemError, ValueError):
    """A tensor has the wrong shape or dtype."""


class HistoryChangedError(AgentMemError, ValueError):
    """A caller's messages contradict what the memory holds, and the policy is to refuse that."""


class TurnTimeoutError(AgentMemError, TimeoutError):
    """A turn took longer than it was given. It was dropped: the memory is as it was before."""


class MissingExtraError(AgentMemError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


class ClosedError(AgentMemError):
    """The memory, store or model was closed."""


class ModelError(AgentMemError):
    """Something about the language model."""


class ModelNotFoundError(ModelError):
    """The model name resolves to nothing."""


class DownloadError(ModelError):
    """No source could deliver a file."""


class HashMismatchError(ModelError):
    """Downloaded bytes are not the pinned ones; they were removed."""


class UnsupportedModelError(ModelError):
    """The architecture cannot be bound exactly, so it is refused by name."""


class TemplateError(ModelError):
    """The model's chat template cannot express the conversation."""


class StoreError(AgentMemError):
    """Something about an agent's files."""


class AgentNotFoundError(StoreError):
    """There is no agent of that name."""


class AgentExistsError(StoreError):
    """An agent of that name is already there."""


class AgentBusyError(StoreError):
    """Another writer holds the agent."""


class StaleWriterError(StoreError):
    """This writer lost the agent to a later one; nothing it had open was committed."""


class StaleReaderError(StoreError):
    """What this reader looked at was forgotten or moved by the agent's writer since it opened the agent."""


class ReadOnlyError(StoreError):
    """The agent was opened read-only."""


class FingerprintMismatchError(StoreError):
    """The stored memory belongs to another model.

    ``differing`` maps each differing field to its (stored, current) pair; ``model`` is the name of the model
    that the memory was made with.
    """

    def __init__(
        self, agent_id: str, differing: Mapping[str, tuple[str, str]], model: str | None = None
    ) -> None:
        self.agent_id = agent_id
        self.differing = dict(differing)
        self.model = model
        rows = "; ".join(f"{k}: stored {a!r}, now {b!r}" for k, (a, b) in sorted(differing.items()))
        made = "another model" if model is None else f"the model {model!r}, and this is another one"
        super().__init__(
            f"agent {agent_id!r} was made with {made}. Open it with the model it was made with, or move it to "
            f"another one with reencode. What differs: {rows}"
        )


class KeyNeededError(StoreError):
    """The agent is encrypted and no key was given, or a key was given for one that is not."""


class WrongKeyError(StoreError):
    """The key does not open the encrypted agent."""


class FormatVersionError(StoreError):
    """The files were written by a newer agentmem."""


class DamagedError(StoreError):
    """Stored bytes are not what was written. Names the agent, the file and the range."""

    def __init__(self, agent_id: str, file: str, where: str, detail: str) -> None:
        self.agent_id, self.file, self.where = agent_id, file, where
        super().__init__(
            f"agent {agent_id!r}: {file} is damaged at {where}: {detail}. Nothing was read from it; "
            "`agentmem verify` shows the extent, `agentmem repair` mends it; or restore an export."
        )


class StateNotFoundError(StoreError):
    """There is no state of that id."""


class StateForgottenError(StateNotFoundError):
    """The state existed, and what it stood on was forgotten."""


class RebuildNeededError(StoreError):
    """What should be forgotten sits in the sinks, which every later token attended to."""


class ArchiveError(StoreError):
    """An export cannot be read or written."""
