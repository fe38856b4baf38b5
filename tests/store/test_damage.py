"""Stored bytes that are not what was written: a typed error that names the place, never wrong memory."""

from __future__ import annotations

import gc
import os
import sqlite3
from pathlib import Path

import pytest
import torch

from agentmem.errors import DamagedError, FormatVersionError
from agentmem.store import DiskHome
from agentmem.store.segment import segment_spec
from support.flipping import LivedIn
from support.stores import (
    DIGEST_BLOCKS,
    LAYOUT,
    SEGMENT_TOKENS,
    add_turn,
    contents,
    create,
    expected,
    kv,
    same,
)

SPEC = segment_spec(LAYOUT, SEGMENT_TOKENS)


@pytest.fixture
def home(tmp_path: Path) -> DiskHome:
    """A home whose agent "ada" has 150 tokens in three segments, and five digests in two files."""
    home = DiskHome(tmp_path, segment_tokens=SEGMENT_TOKENS, digest_blocks=DIGEST_BLOCKS)
    store = create(home)
    store.digests.select("mean")
    add_turn(store, 1, 100, blocks=5)
    add_turn(store, 2, 50)
    store.close()
    return home


def file_of(home: DiskHome, name: str) -> Path:
    """A file of the only agent."""
    return next((home.home / "agents").iterdir()) / name


def flip(path: Path, offset: int) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    path.write_bytes(data)


def read(store: DiskHome, layer: int, start: int, stop: int) -> torch.Tensor:
    """Keys of a range."""
    heads, dim = LAYOUT.layers[layer]
    out = torch.full((heads, stop - start, dim), 9.0)
    store.log.read(layer, start, stop, out, None)
    return out


def read_everything(home: DiskHome) -> None:
    """Open the agent and read its turns and its log."""
    store = home.open("ada")
    contents(store.log)
    store.turns()
    store.close()


def test_flipped_bit_in_a_page(home: DiskHome) -> None:
    """Reading a damaged page raises and names agent, file and slots; nothing of it is handed out."""
    path = file_of(home, "kv/000001.safetensors")
    flip(path, SPEC.offset(0, 1, 5))  # layer 0, keys, head 1, slot 5: token 69
    store = home.open("ada")

    with pytest.raises(
        DamagedError, match=r"ada.*kv/000001.safetensors.*slots 0 to 32 of layers.0.keys\[1\]"
    ):
        read(store, 0, 69, 70)
    with pytest.raises(DamagedError):
        store.log.gather(0, torch.tensor([[0], [64]]), torch.empty(2, 1, 4), None)
    store.log.gather(0, torch.tensor([[69], [0]]), torch.empty(2, 1, 4), None)  # head 0 is unharmed
    assert torch.equal(read(store, 1, 0, 150), expected((1, 100), (2, 50))[2])
    report = store.verify(deep=True)
    assert not report.ok and store.verify().ok
    assert [(f.file, f.where) for f in report.findings] == [
        ("kv/000001.safetensors", "slots 0 to 32 of layers.0.keys[1]")
    ]
    store.close()


@pytest.mark.parametrize("tensor", range(4))
def test_every_tensor_is_covered(home: DiskHome, tensor: int) -> None:
    """A flip in any tensor, in the first or the last committed slot, is found."""
    for slot in (0, 21):
        path = file_of(home, "kv/000002.safetensors")
        whole = path.read_bytes()
        flip(path, SPEC.offset(tensor, 0, slot) + 3)
        store = home.open("ada")
        with pytest.raises(DamagedError):
            contents(store.log)
        store.close()
        path.write_bytes(whole)


def test_bytes_beyond_the_committed_do_not_matter(home: DiskHome) -> None:
    """What an abandoned turn left behind the last committed slot is no damage."""
    flip(file_of(home, "kv/000002.safetensors"), SPEC.offset(0, 0, 22))
    store = home.open("ada")

    assert same(contents(store.log), expected((1, 100), (2, 50)))
    assert store.verify(deep=True).ok
    store.close()


def test_damage_in_the_open_page_is_not_sealed_over(home: DiskHome) -> None:
    """A turn that goes on in a damaged page is refused; it never gets a new checksum."""
    flip(file_of(home, "kv/000002.safetensors"), SPEC.offset(3, 0, 20))
    store = home.open("ada")

    with pytest.raises(DamagedError, match=r"layers\.1\.values"):
        add_turn(store, 3, 5)
    store.abort()
    assert store.log.length == 150
    store.close()


@pytest.mark.parametrize("length", [0, 10, 4096, SPEC.size // 2, SPEC.size - 1, SPEC.size + 1])
def test_truncated_segment(home: DiskHome, length: int) -> None:
    """A segment of another length is refused before it is mapped; the others can be read."""
    path = file_of(home, "kv/000001.safetensors")
    os.truncate(path, length)
    store = home.open("ada")

    with pytest.raises(DamagedError, match=r"kv/000001.*bytes .*not"):
        contents(store.log)
    assert torch.equal(read(store, 0, 0, 64), expected((1, 100))[0][:, :64])
    assert [finding.file for finding in store.verify().findings] == ["kv/000001.safetensors"]
    store.close()


def test_truncated_while_open(home: DiskHome) -> None:
    """A segment truncated after it was mapped raises too, instead of ending the process."""
    store = home.open("ada")
    contents(store.log)
    for number in (0, 1, 2):
        os.truncate(file_of(home, f"kv/{number:06d}.safetensors"), 5000)

    with pytest.raises(DamagedError):
        contents(store.log)
    with pytest.raises(DamagedError):
        store.log.gather(0, torch.tensor([[69], [0]]), torch.empty(2, 1, 4), None)
    with pytest.raises(DamagedError):
        add_turn(store, 3, 5)
    assert file_of(home, "kv/000002.safetensors").stat().st_size == 5000
    store.close()


def test_missing_segment(home: DiskHome) -> None:
    """A segment that is gone is damage, never an empty memory."""
    file_of(home, "kv/000000.safetensors").unlink()
    store = home.open("ada")

    assert store.log.length == 150
    with pytest.raises(DamagedError, match=r"kv/000000.*cannot be opened"):
        read(store, 0, 0, 1)
    assert not store.verify().ok
    store.close()


def test_changed_header(home: DiskHome) -> None:
    """A changed header is refused, although it may still be valid safetensors."""
    flip(file_of(home, "kv/000000.safetensors"), 40)
    store = home.open("ada")

    with pytest.raises(DamagedError, match="header"):
        read(store, 0, 0, 1)
    store.close()


@pytest.mark.parametrize("harm", ["flip", "truncate", "remove"])
def test_damaged_digests_are_not_there(home: DiskHome, harm: str) -> None:
    """Digests from the first damaged file on count as missing, and can be made again."""
    path = file_of(home, "digests/000001.safetensors")
    if harm == "flip":
        flip(path, 4096 + 5)
    elif harm == "truncate":
        os.truncate(path, 4100)
    else:
        path.unlink()
    store = home.open("ada")
    store.digests.select("mean")
    assert not store.verify(deep=True).ok

    assert store.digests.count == 4
    again = kv(1, 6)[0]
    store.digests.append(again)
    add_turn(store, 3, 1)
    store.close()
    store = home.open("ada")
    assert store.digests.count == 10
    assert torch.equal(torch.cat(list(store.digests.parts(1)), dim=1)[:, 4:], again[1])
    assert store.verify(deep=True).ok
    store.close()


def test_uncommitted_digests_overwritten_by_a_killed_turn(home: DiskHome) -> None:
    """Digests overwritten in place by a turn that never finished are found out by their checksums."""
    store = home.open("ada")
    store.digests.truncate(2)
    store.digests.append(kv(9, 2)[0])
    store.close()
    store = home.open("ada")

    assert store.digests.count == 0
    store.close()


@pytest.mark.parametrize(("offset", "count"), [(0, 16), (100, 3000), (4096, 40_000), (8192, 80_000)])
def test_damaged_index(home: DiskHome, offset: int, count: int) -> None:
    """A damaged index is a typed error at opening, and the listing still works."""
    path = file_of(home, "agent.db")
    data = bytearray(path.read_bytes())
    count = min(count, len(data) - offset)
    data[offset : offset + count] = b"\xff" * count
    path.write_bytes(data)

    with pytest.raises(DamagedError, match=r"agent\.db"):
        read_everything(home)
    (row,) = home.list()
    assert row.agent_id in ("ada", f"(damaged: {path.parent.name})")


def test_empty_index(home: DiskHome) -> None:
    """An index of no bytes is damage, not a new agent."""
    file_of(home, "agent.db").write_bytes(b"")

    with pytest.raises(DamagedError):
        home.open("ada")
    with pytest.raises(DamagedError):
        home.peek("ada")


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("length", [0, 1, 99])
def test_a_refused_index_keeps_its_log(tmp_path: Path, length: int, read_only: bool) -> None:
    """SQLite takes an index without a first byte for a new one, and would delete the log of the old one."""
    store = LivedIn(tmp_path, wal=True)
    os.truncate(store.folder / "agent.db", length)

    with pytest.raises(DamagedError, match=f"agent.db.*{length} bytes long"):
        store.home.open("ada", read_only=read_only)

    assert (store.folder / "agent.db-wal").read_bytes() == store.files[Path("agent.db-wal")]


def test_extents_that_leave_a_gap(home: DiskHome) -> None:
    """An index whose tables contradict each other is refused at opening."""
    with sqlite3.connect(file_of(home, "agent.db")) as db:
        db.execute("DELETE FROM extents WHERE start = 0")
    db.close()

    with pytest.raises(DamagedError, match="extents"):
        home.open("ada")


def test_newer_format(home: DiskHome) -> None:
    """What a newer agentmem wrote is refused with the remedy."""
    db = sqlite3.connect(file_of(home, "agent.db"))
    db.execute("PRAGMA user_version = 99")
    db.close()

    for read_only in (False, True):
        with pytest.raises(FormatVersionError, match=r"99.*Upgrade"):
            home.open("ada", read_only=read_only)


def test_folder_of_another_agent(home: DiskHome) -> None:
    """A folder renamed by hand to another agent's place is not taken for that agent."""
    create(home, "bob").close()
    folders = {home.peek(name).agent_id: home._folder(name) for name in ("ada", "bob")}
    home.delete("bob")
    folders["ada"].rename(folders["bob"])

    with pytest.raises(DamagedError, match="ada"):
        home.open("bob")


def files_open(home: DiskHome) -> list[Path]:
    """The segments and digests of this home that this process has open."""
    gc.collect()
    links = [fd.readlink() for fd in Path("/dev/fd").iterdir() if fd.is_symlink()]
    return [link for link in links if home.home in link.parents and link.suffix == ".safetensors"]


def test_a_store_that_nobody_closed_lets_its_files_go(home: DiskHome) -> None:
    """With the last who knew of it."""
    contents(home.open("ada").log)
    assert not files_open(home)


def test_a_segment_that_was_refused_does_not_stay_open(
    home: DiskHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader on a tmpfs asks for a segment's checksums when it opens its file; refused, it lets go of it."""
    monkeypatch.setattr("agentmem.store.disk.on_tmpfs", lambda _: True)
    with sqlite3.connect(file_of(home, "agent.db")) as conn:
        conn.execute("UPDATE pages SET filled = 7 WHERE segment = 0")
    conn.close()
    store = home.open("ada", read_only=True)
    with pytest.raises(DamagedError, match="table pages"):
        contents(store.log)
    store.close()
    assert not files_open(home)


@pytest.mark.parametrize("turn", [1, 6])
def test_ids_under_another_key(tmp_path: Path, turn: int) -> None:
    """Ids whose row a changed bit moved away are not believed to have been given up."""
    store = LivedIn(tmp_path, wal=False)
    with sqlite3.connect(store.folder / "agent.db") as db:
        db.execute("UPDATE tokens SET turn = turn + 16 WHERE turn = ?", (turn,))
    db.close()

    reader = store.home.open("ada", read_only=True)
    with pytest.raises(DamagedError, match=f"row {turn + 16} of table tokens"):
        reader.token_ids(0, reader.log.length)
    reader.close()


@pytest.mark.parametrize("table", ["turns", "tokens"])
def test_a_page_that_stops_sqlite_while_rows_are_looked_for(tmp_path: Path, table: str) -> None:
    """Bits of the pointers in a table's first page: SQLite's own error never comes out, and nothing is silently wrong."""
    store = LivedIn(tmp_path, wal=False)
    with sqlite3.connect(store.folder / "agent.db") as db:
        ((root,),) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,))
        ((size,),) = db.execute("PRAGMA page_size")
    db.close()
    data = store.files[Path("agent.db")]

    outcomes = set()
    for bit in range(8 * 8, 8 * 10):  # the first cell's place, or half of the last child's page number
        at = (root - 1) * size + bit // 8
        changed = data[at] ^ 1 << bit % 8
        outcomes.add(store.outcome(Path("agent.db"), data[:at] + bytes([changed]) + data[at + 1 :]))

    assert outcomes <= {"right", "refused"}
    assert "refused" in outcomes


def test_a_source_that_leads_to_one_turn_twice(tmp_path: Path) -> None:
    """SQLite's index of sources has the number of another turn that has the same source, too."""
    store = LivedIn(tmp_path, wal=False)
    with sqlite3.connect(store.folder / "agent.db") as db:
        ((root,), (size,)) = (
            *db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'turns_by_source'"),
            *db.execute("PRAGMA page_size"),
        )
    db.close()
    data = bytearray((store.folder / "agent.db").read_bytes())
    last = root * size - 1
    assert data[last] == 2  # of the entry written first: a turn's number
    data[last] ^= 1
    (store.folder / "agent.db").write_bytes(data)

    reader = store.home.open("ada", read_only=True)
    for look in (lambda: reader.observed_parts("notes.txt"), lambda: reader.origins(["notes.txt"])):
        with pytest.raises(DamagedError, match="turns"):
            look()
    reader.close()
