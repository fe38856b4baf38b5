"""A reader that is open while the writer forgets, collects or goes on: the old, the new, or an error that says so."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agentmem.errors import DamagedError, StaleReaderError
from agentmem.store import DiskHome
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, add_turn, contents, create, expected, same


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home with tiny segments."""
    return DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)


def test_a_reader_of_forgotten_keys_is_told_so(home: DiskHome) -> None:
    """What it had read and checked before is not handed out as zeros, and not called damage."""
    writer = create(home)
    for seed in (1, 2, 3):
        add_turn(writer, seed, 50)
    reader = home.open("ada", read_only=True)
    old = expected((1, 50), (2, 50), (3, 50))
    assert same(contents(reader.log), old)
    writer.forget([2])

    with pytest.raises(StaleReaderError, match=r"'ada' was changed by its writer.*Open it again"):
        contents(reader.log)
    reader.close()
    reader = home.open("ada", read_only=True)
    assert same(contents(reader.log), expected((1, 50), (-2, 50), (3, 50)))
    reader.close()
    writer.close()


def test_a_reader_of_collected_segments_is_told_so(home: DiskHome) -> None:
    """A segment that was removed under a reader is not damage."""
    writer = create(home)
    add_turn(writer, 1, 60)
    add_turn(writer, 2, 200)
    reader = home.open("ada", read_only=True)
    writer.rewind("state-1")
    writer.collect(prune=True)

    with pytest.raises(StaleReaderError, match=r"kv/00000\d"):
        contents(reader.log)
    reader.close()
    writer.close()


def test_damage_stays_damage(home: DiskHome) -> None:
    """With no writer about, a reader calls damage by its name."""
    writer = create(home)
    add_turn(writer, 1, 60)
    writer.close()
    reader = home.open("ada", read_only=True)
    path = home._folder("ada") / "kv/000000.safetensors"
    data = bytearray(path.read_bytes())
    data[4100] ^= 1
    path.write_bytes(data)

    with pytest.raises(DamagedError, match="checksum"):
        contents(reader.log)
    reader.close()


def test_readers_beside_a_busy_writer(home: DiskHome) -> None:
    """Turn after turn is added and forgotten: whoever opens meanwhile sees whole turns, or is told to open again."""
    writer = create(home)
    add_turn(writer, 1, 50)
    seen, problems, done = [], [], threading.Event()

    def read() -> None:
        while not done.is_set():
            reader = home.open("ada", read_only=True)
            try:
                turns = reader.turns()
                seen.append(len(turns))
                wanted = expected(
                    *[(-int(t.state_id[6:]) if t.forgotten else int(t.state_id[6:]), 50) for t in turns]
                )
                if [t.forgotten for t in reader.turns()] == [t.forgotten for t in turns]:
                    found = contents(reader.log)
                    if not same([tensor[:, : 50 * len(turns)] for tensor in found], wanted) and (
                        reader.turns() == turns
                    ):
                        problems.append("wrong")
            except StaleReaderError:
                seen.append(0)
            except Exception as error:  # noqa: BLE001  # any other error is what must not be
                problems.append(repr(error))
            finally:
                reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    for seed in range(2, 26):
        turn = add_turn(writer, seed, 50)
        if seed % 3 == 0:
            writer.forget([turn.id])
    done.set()
    thread.join()
    writer.close()

    assert problems == []
    assert len(seen) > 2
