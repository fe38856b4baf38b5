"""The open part of an encrypted agent: who it is, as lists show it without a key. Made anew when it is damaged.

Who the agent is also stands in its encrypted index. The key file is bound to the agent's uuid, which a damaged open
part does not tell: so the agent's key is taken out of it unproven, the index must decrypt under it, and the uuid that
stands there must then fit the key file. Knows files, keys and the table of who it is; no turns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from agentmem.errors import DamagedError, StoreError, WrongKeyError
from agentmem.store.encrypted_index import INDEX_FILE
from agentmem.store.encrypted_salvage import EncryptedPlace
from agentmem.store.failures import says_nothing
from agentmem.store.index import Index
from agentmem.store.keys import KEY_FILE, DataKey, MemoryKey, is_encrypted, key_record, unproven, unwrapped
from agentmem.store.salvage_places import PlainPlace
from agentmem.store.salvage_tree import Row
from agentmem.store.schema import open_database

LOSS = f"the open part could not be read, and was made anew from {INDEX_FILE}"


def open_part_is_lost(folder: Path, agent_id: str) -> bool:
    """Whether a folder holds an encrypted agent that no longer says openly who it is. Raises StoreError."""
    if not is_encrypted(folder):
        return False
    path = folder / "agent.db"
    if not path.exists():
        return True
    try:
        with closing(open_database(path, agent_id, read_only=True)) as db:
            found = Index(db, agent_id, read_only=True).identity().agent_id
    except StoreError as error:
        if type(error) not in (DamagedError, StoreError) or says_nothing(error):
            raise
        return True
    return found != agent_id


class OpenPart:
    """The open part of one encrypted agent, out of its encrypted index. The caller holds the lock.

    Args:
        folder: the agent's.
        agent_id: whose it must be.
        workshop: an empty folder for what is made.
        columns: our tables and their columns.
        key: the user's.

    Raises:
        WrongKeyError: nothing of the index is opened by the key.
        DamagedError: the index does not say who the agent is, or the key file is damaged.
    """

    def __init__(
        self,
        folder: Path,
        agent_id: str,
        workshop: Path,
        columns: Mapping[str, Sequence[str]],
        key: MemoryKey,
    ) -> None:
        self._folder = folder
        self._agent_id = agent_id
        self._workshop = workshop
        record = key_record(folder, agent_id)
        found = unproven(record, key)
        if found is None:
            raise self._wrong()
        self.data_key: DataKey = found
        self._row = self._identity(columns)
        if unwrapped(record, str(self._row["uuid"]), key) is None:
            raise DamagedError(agent_id, KEY_FILE, "the whole file", "it is not this agent's")

    def put(self) -> None:
        """Put a new one in the place of the damaged one, in one step. Raises OSError, sqlite3.Error."""
        place = PlainPlace(self._folder, self._workshop)
        names = list(self._row)
        with place.filling() as conn:
            conn.execute(
                f"INSERT INTO identity ({', '.join(names)}) VALUES ({', '.join('?' for _ in names)})",  # noqa: S608
                [self._row[name] for name in names],
            )
        place.swap()

    def _identity(self, columns: Mapping[str, Sequence[str]]) -> Row:
        """Who the agent is; only what is authenticated is believed."""
        place = EncryptedPlace(self._folder, self._agent_id, self._workshop, self.data_key)
        try:
            rows = list(place.authenticated(columns)["identity"].rows.values())
        except DamagedError as error:
            raise self._wrong() from error
        if len(rows) != 1 or rows[0].get("agent_id") != self._agent_id:
            raise DamagedError(
                self._agent_id, "agent.db", "table identity", f"neither it nor {INDEX_FILE} says whose it is"
            )
        return rows[0]

    def _wrong(self) -> WrongKeyError:
        return WrongKeyError(
            f"agent {self._agent_id!r} is not opened by this key, or nothing of {INDEX_FILE} is what was written; give "
            "the key it was last locked with, or restore an export"
        )
