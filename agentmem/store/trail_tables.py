"""Tables, indexes and triggers of the ninth format: what spares an opening the walk over all turns.

``trail`` says of the current branch what ``turns`` and ``extents`` say (:mod:`agentmem.store.trail`); ``sources`` says
how many turns each source has, so that one that is missing in an index is missed. The triggers belong to the index and
not to a connection: whoever changes a turn's place, or forgets it, empties the trail. Statements alone.
"""

from __future__ import annotations

from typing import Final

_COUNTED_IN: Final = """
    INSERT INTO sources (source, turns) VALUES (NEW.source, 1) ON CONFLICT DO UPDATE SET turns = turns + 1;
"""
_COUNTED_OUT: Final = """
    UPDATE sources SET turns = turns - 1 WHERE source = OLD.source;
    DELETE FROM sources WHERE source = OLD.source AND turns = 0;
"""

TRAIL_TABLES: Final = (
    """CREATE TABLE trail (
        chunk INTEGER PRIMARY KEY,
        turns BLOB NOT NULL,            -- (id i64, stop i64, forgotten u8) a turn, little-endian
        runs BLOB NOT NULL              -- (start, segment, slot, count) i64, end to end over their tokens
    ) STRICT""",
    "CREATE TABLE sources (source TEXT PRIMARY KEY, turns INTEGER NOT NULL) STRICT",
    "INSERT INTO sources SELECT source, count(*) FROM turns WHERE source IS NOT NULL GROUP BY source",
    "DROP INDEX extents_by_segment",
    "CREATE INDEX extents_by_slot ON extents (segment, slot)",
    "CREATE INDEX turns_forgotten ON turns (forgotten) WHERE forgotten",
    """CREATE TRIGGER trail_moved AFTER UPDATE OF id, parent, start, stop, depth, forgotten ON turns
    BEGIN DELETE FROM trail; END""",
    "CREATE TRIGGER trail_shorter AFTER DELETE ON turns BEGIN DELETE FROM trail; END",
    """CREATE TRIGGER trail_replaced AFTER UPDATE OF turn, start, segment, slot, count ON extents
    BEGIN DELETE FROM trail; END""",
    "CREATE TRIGGER trail_freed AFTER DELETE ON extents BEGIN DELETE FROM trail; END",
    f"""CREATE TRIGGER source_added AFTER INSERT ON turns WHEN NEW.source IS NOT NULL
    BEGIN {_COUNTED_IN} END""",
    f"""CREATE TRIGGER source_removed AFTER DELETE ON turns WHEN OLD.source IS NOT NULL
    BEGIN {_COUNTED_OUT} END""",
    f"""CREATE TRIGGER source_dropped AFTER UPDATE OF source ON turns WHEN OLD.source IS NOT NULL
    BEGIN {_COUNTED_OUT} END""",
    f"""CREATE TRIGGER source_given AFTER UPDATE OF source ON turns WHEN NEW.source IS NOT NULL
    BEGIN {_COUNTED_IN} END""",
)
