"""A reader that is open while the writer forgets, collects or goes on: the old, the new, or an error that says so."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from agentmem.errors import DamagedError, StaleReaderError, StoreError
from agentmem.store import DiskHome, Store, forgetting
from agentmem.store.pages import PageSums, PageTable
from agentmem.store.parts import StoreParts
from agentmem.store.segment import SegmentSet
from agentmem.store.slot_rows import SlotRows
from support.stores import DIGEST_BLOCKS, SEGMENT_TOKENS, add_turn, contents, create, digests, expected, same


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home with tiny segments."""
    return DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)


def of_three_turns(home: DiskHome) -> Store:
    """A writer of an agent of 150 tokens."""
    writer = create(home)
    for seed in (1, 2, 3):
        add_turn(writer, seed, 50)
    return writer


def test_a_reader_of_forgotten_keys_is_told_so(home: DiskHome) -> None:
    """What it had read and checked before is not handed out as zeros, and not called damage."""
    writer = of_three_turns(home)
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

    with pytest.raises(StaleReaderError, match="forgotten or moved"):
        contents(reader.log)
    assert [turn.state_id for turn in writer.turns()] == ["state-1"]
    reader.close()
    writer.close()


@pytest.mark.parametrize("change", ["forget", "prune"])
def test_a_reader_of_texts_is_told_so(home: DiskHome, change: str) -> None:
    """Texts, ids and origins of turns are what they were when the reader was opened, too, or it is told."""
    writer = of_three_turns(home)
    reader = home.open("ada", read_only=True)
    looks = (
        reader.turns,
        reader.origins,
        lambda: reader.turn_at(70),
        lambda: reader.token_ids(0, 70),
        lambda: reader.search("number2"),
        lambda: reader.observed_parts("a book"),
    )
    before = [look() for look in looks]
    add_turn(writer, 4, 50)
    assert [look() for look in looks] == before
    if change == "forget":
        writer.forget([2])
    else:
        writer.rewind("state-1")
        writer.collect(prune=True)
    for look in looks:
        with pytest.raises(StaleReaderError, match=r"turns of its history were .*Open it again"):
            look()
    reader.close()
    writer.close()


@pytest.mark.parametrize("again", [False, True])
def test_a_reader_of_an_agent_that_is_removed_is_told_so(home: DiskHome, again: bool) -> None:
    """Files that went with their agent are not damage, nor are those of another agent of the same name."""
    writer = of_three_turns(home)
    writer.close()
    reader = home.open("ada", read_only=True)
    read_layer(reader, 0, 0, SEGMENT_TOKENS)
    home.delete("ada")
    if again:
        writer = create(home)
        add_turn(writer, 4, 150)
        writer.close()
    with pytest.raises(StaleReaderError, match="Open it again"):
        contents(reader.log)
    with pytest.raises(StaleReaderError, match="Open it again"):
        reader.turns()
    reader.close()


def read_layer(store: Store, layer: int, start: int = 0, stop: int = 150) -> list[torch.Tensor]:
    """Keys and values of a layer."""
    heads, dim = store.log.layout.layers[layer]
    found = [torch.empty(heads, stop - start, dim, dtype=store.log.layout.dtype) for _ in range(2)]
    store.log.read(layer, start, stop, *found)
    return found


def forget_without_overwriting(writer: Store, turn: int, patch: pytest.MonkeyPatch) -> None:
    """The commit is done; the bytes are as they were, as when the writer is at work between the two."""

    def fail(*_: object) -> None:
        raise OSError("not now")

    with patch.context() as now:
        now.setattr(forgetting, "scrub", fail)
        with pytest.raises(StoreError, match="could not be overwritten yet"):
            writer.forget([turn])


def test_bytes_that_change_after_they_were_checked(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forgotten is overwritten between the look at the last checksum and the copy: no zeros are handed out."""
    writer: Any = of_three_turns(home)
    reader = home.open("ada", read_only=True)
    first = read_layer(reader, 0)
    forget_without_overwriting(writer, 1, monkeypatch)  # all of it in one segment
    check = PageTable.check_slots

    def check_then_scrub(self: PageTable, tensor: int, start: int, stop: int) -> None:
        check(self, tensor, start, stop)
        if tensor == 3:  # the values of layer 1, which are read last
            forgetting.scrub(writer._segments, writer._slots, writer._slots.scrubs())

    with monkeypatch.context() as patch:
        patch.setattr(PageTable, "check_slots", check_then_scrub)
        with pytest.raises(StaleReaderError, match="Open it again"):
            read_layer(reader, 1)
    assert same(first, expected((1, 50), (2, 50), (3, 50))[:2])
    reader.close()
    writer.close()


def test_a_segment_that_is_opened_later(home: DiskHome) -> None:
    """Its checksums are those of the forgotten: that they fit does not make it what this reader had."""
    writer = of_three_turns(home)
    reader = home.open("ada", read_only=True)
    read_layer(reader, 0, 0, SEGMENT_TOKENS)
    writer.forget([3])
    assert writer.log.dead == ((100, 150),)

    with pytest.raises(StaleReaderError, match="Open it again"):
        read_layer(reader, 0, 128, 150)
    reader.close()
    writer.close()


def test_a_writer_that_forgets_while_a_reader_opens(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader had read what is dead, and had yet to count the commits: it is no reader of the later state."""
    writer = of_three_turns(home)
    standing, forgotten = StoreParts.standing, []

    def standing_then_forget(self: StoreParts, head: Any) -> Any:
        found = standing(self, head)
        if self.index.read_only and not forgotten:
            forgotten.append(writer.forget([2]))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(StoreParts, "standing", standing_then_forget)
        reader = home.open("ada", read_only=True)
    assert forgotten == [50]
    assert reader.log.dead == ()
    with pytest.raises(StaleReaderError, match="Open it again"):
        contents(reader.log)
    reader.close()
    writer.close()


def test_a_reader_of_turns_that_were_left_reads_on(home: DiskHome) -> None:
    """The writer goes on, rewinds and stands elsewhere, and forgets what this reader does not stand on."""
    writer = create(home)
    for seed in (1, 2, 3):
        add_turn(writer, seed, 40)
    reader = home.open("ada", read_only=True)
    old = expected((1, 40), (2, 40), (3, 40))
    later = [add_turn(writer, 4, 40)]
    assert same(contents(reader.log), old)
    writer.rewind("state-1")
    assert same(contents(reader.log), old)
    later.append(add_turn(writer, 5, 70))
    add_turn(writer, 6, 40)
    assert same(contents(reader.log), old)
    writer.forget([later[1].id])
    assert same(contents(reader.log), old)
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
                if not same(contents(reader.log), wanted) or reader.turns() != turns:
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


def test_digests_whose_places_were_taken_by_other_turns(home: DiskHome) -> None:
    """The writer went back and on from there: a reader's next turn chooses by no digest of tokens it does not have."""
    writer = create(home)
    writer.digests.select("small")
    add_turn(writer, 1, 40, blocks=DIGEST_BLOCKS)
    add_turn(writer, 2, 40, blocks=3)
    reader = home.open("ada", read_only=True)
    reader.digests.select("small")
    assert reader.digests.count == DIGEST_BLOCKS + 3
    reader.digests.append(digests(9, 2))  # of blocks that the writer had none for
    writer.rewind("state-1")
    add_turn(writer, 3, 40, blocks=3)

    reader.digests.select("small")
    assert reader.digests.count == DIGEST_BLOCKS  # the others are made again
    assert all(
        torch.equal(reader.digests.parts(n)[0], made) for n, made in enumerate(digests(1, DIGEST_BLOCKS))
    )
    reader.digests.append(digests(2, 3))
    reader.digests.select("small")
    assert reader.digests.count == DIGEST_BLOCKS + 3  # what is in memory stays there
    reader.close()
    writer.close()


def test_what_a_writer_commits_meanwhile_is_no_damage(
    home: DiskHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that verifies while turns are added, or forgotten, finds nothing wrong; damage it does find."""
    writer = create(home)
    turns = [add_turn(writer, seed, 50) for seed in (1, 2, 3)]
    reader = home.open("ada", read_only=True)
    table, pages, done = SegmentSet.table, SlotRows.pages, []

    def table_then_forget(self: SegmentSet, number: int) -> PageTable:
        found = table(self, number)  # its checksums are those before
        if "forgotten" not in done:
            writer.forget([turns[0].id])
            done.append("forgotten")
        return found

    def pages_then_add(self: SlotRows, *which: int) -> list[PageSums]:
        found = pages(self, *which)  # before the new turn's
        if "added" not in done:
            done.append("added")
            add_turn(writer, 4, 50)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(SegmentSet, "table", table_then_forget)
        patch.setattr(SlotRows, "pages", pages_then_add)
        assert reader.verify(deep=True).ok
    assert done == ["added", "forgotten"]
    writer.close()
    path = home._folder("ada") / "kv/000000.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert not reader.verify().ok
    reader.close()


def test_a_forget_that_was_killed_is_no_damage(home: DiskHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next opening for writing overwrites what is listed; until then its checksums are those to come."""
    writer = of_three_turns(home)
    forget_without_overwriting(writer, 2, monkeypatch)
    reader = home.open("ada", read_only=True)
    assert reader.verify(deep=True).ok
    path = home._folder("ada") / "kv/000002.safetensors"  # the third turn's alone
    data = bytearray(path.read_bytes())
    data[4100] ^= 1
    path.write_bytes(data)
    assert [finding.turns for finding in reader.verify(deep=True).findings] == [[3]]
    reader.close()
    writer.close()
