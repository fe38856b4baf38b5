"""The statements of the checkpointer, each constant: values only ever travel as parameters.

Lists travel as JSON and are opened by SQLite's ``json_each``. Knows the tables of LangGraph's SqliteSaver
(``checkpoints``, ``writes``); opens nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence

Statement = tuple[str, Sequence[object]]
"""One statement and its parameters."""

BEGIN = "BEGIN IMMEDIATE"
"""Take the write lock first, so that nothing changes between what is read and what is removed."""

BRANCHES = """
    SELECT thread_id, checkpoint_ns, max(checkpoint_id) FROM checkpoints
    WHERE thread_id IN (SELECT value FROM json_each(?)) GROUP BY thread_id, checkpoint_ns"""
"""The newest checkpoint of each namespace of some threads."""

ONE = """
    SELECT parent_checkpoint_id, type, checkpoint, metadata FROM checkpoints
    WHERE thread_id = ? AND checkpoint_ns = ? AND checkpoint_id = ?"""
"""One checkpoint, and the id of the one it grew from."""

_DELETE_THREADS = (
    "DELETE FROM writes WHERE thread_id IN (SELECT value FROM json_each(?))",
    "DELETE FROM checkpoints WHERE thread_id IN (SELECT value FROM json_each(?))",
)

_DELETE_RUNS = (
    """
    DELETE FROM writes WHERE (thread_id, checkpoint_ns, checkpoint_id) IN (
        SELECT thread_id, checkpoint_ns, checkpoint_id FROM checkpoints
        WHERE json_extract(CAST(metadata AS TEXT), '$.run_id') IN (SELECT value FROM json_each(?)))""",
    """
    DELETE FROM checkpoints
    WHERE json_extract(CAST(metadata AS TEXT), '$.run_id') IN (SELECT value FROM json_each(?))""",
)

_COPY_THREAD = (
    """
    INSERT OR REPLACE INTO checkpoints
        (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    SELECT ?, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
    FROM checkpoints WHERE thread_id = ?""",
    """
    INSERT OR REPLACE INTO writes
        (thread_id, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value)
    SELECT ?, checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value
    FROM writes WHERE thread_id = ?""",
)

_KEEP_ONLY = (
    """
    DELETE FROM writes WHERE thread_id = ? AND checkpoint_ns = ?
    AND checkpoint_id NOT IN (SELECT value FROM json_each(?))""",
    """
    DELETE FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = ?
    AND checkpoint_id NOT IN (SELECT value FROM json_each(?))""",
)


def listing(values: Collection[str]) -> str:
    """Strings as the one parameter that ``json_each`` opens."""
    return json.dumps(sorted(values))


def delete_threads(thread_ids: Collection[str]) -> list[Statement]:
    """Remove whole threads."""
    return [(statement, (listing(thread_ids),)) for statement in _DELETE_THREADS]


def delete_runs(run_ids: Collection[str]) -> list[Statement]:
    """Remove the checkpoints whose metadata name one of these runs, with their writes."""
    return [(statement, (listing(run_ids),)) for statement in _DELETE_RUNS]


def copy_thread(source: str, target: str) -> list[Statement]:
    """Put every checkpoint and write of one thread into another, ids and parents as they are."""
    return [(statement, (target, source)) for statement in _COPY_THREAD]


def keep_only(thread_id: str, namespace: str, kept: Collection[str]) -> list[Statement]:
    """Remove every checkpoint of one namespace but these, with its writes."""
    return [(statement, (thread_id, namespace, listing(kept))) for statement in _KEEP_ONLY]
