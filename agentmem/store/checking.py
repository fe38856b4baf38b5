"""Verification: what is wrong with an agent's files, as a report instead of an error.

Reads the index's rows, file sizes and (deep) every checksum. Changes nothing. Whoever only reads may do so while a
writer is at work: what does not fit together then is looked at again before it is called damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from agentmem.errors import DamagedError
from agentmem.store.base import Finding, VerifyReport
from agentmem.store.digest_log import DiskDigestLog
from agentmem.store.failures import typed
from agentmem.store.index import Index
from agentmem.store.pages import PAGE_SLOTS, page_range
from agentmem.store.parts import StoreParts
from agentmem.store.reader_log import stale
from agentmem.store.rule_states import RuleStateRows
from agentmem.store.segment import SegmentSet
from agentmem.store.slot_rows import SlotRows
from agentmem.store.tensor_file import flaw_of

TRIES: Final = 5
"""How often a reader looks for a moment in which no writer commits anything."""


def verify(parts: StoreParts, *, deep: bool) -> VerifyReport:
    """Check one agent. Deep reads every committed byte of K/V.

    Raises:
        StaleReaderError: whenever something did not fit, a writer had committed meanwhile.
        StoreError: the system would not let it be read, which says nothing of what is stored.
    """
    for _ in range(TRIES):
        before = _commits(parts.index)
        report = _verified(parts, deep=deep)
        if report.ok or not parts.index.read_only or _commits(parts.index) == before:
            return report
    raise stale(parts.agent_id, "it went on whenever it was verified")


def _commits(index: Index) -> int:
    try:
        return index.commits()
    except DamagedError:
        return -1


def _verified(parts: StoreParts, *, deep: bool) -> VerifyReport:
    findings: list[Finding] = []
    pages = checked = 0
    try:
        with typed(parts.agent_id, "verifying"):
            for found_pages, found_bytes in _found(parts, findings, deep=deep):
                pages, checked = pages + found_pages, checked + found_bytes
    except DamagedError as error:  # the index itself cannot be read on
        findings.append(Finding("agent.db", "the index", str(error)))
    return VerifyReport(deep, pages, checked, findings)


def _found(parts: StoreParts, findings: list[Finding], *, deep: bool) -> Iterator[tuple[int, int]]:
    """Add what is wrong to ``findings``; yields the (pages, bytes) that were checked of each segment."""
    index, slots, segments, digests = parts.index, parts.slots, parts.segments, parts.digests
    with index.snapshot():
        findings += _index_findings(index, slots, segments.capacity, deep=deep)
        findings += _trail_findings(parts)
    for number in slots.segments():
        checked, bad = _segment_findings(segments, slots, number, deep=deep)
        findings += bad
        yield checked
    findings += _digest_findings(slots, digests, deep=deep)
    findings += _set_aside_findings(segments, slots)


def _index_findings(index: Index, slots: SlotRows, capacity: int, *, deep: bool) -> Iterator[Finding]:
    problems = index.execute("PRAGMA integrity_check" if deep else "PRAGMA quick_check")
    for (problem,) in problems:
        if problem != "ok":
            yield Finding("agent.db", "the index", problem)
    for where, detail in index.flaws():
        yield Finding("agent.db", where, detail)
    for table, row, *_ in index.execute("PRAGMA foreign_key_check"):
        yield Finding("agent.db", f"row {row} of {table}", "it refers to a row that is not there")
    wrong = index.execute(
        "SELECT t.id FROM turns t LEFT JOIN tokens i ON i.turn = t.id "
        "WHERE t.forgotten = 0 AND coalesce(length(i.ids), -1) != 4 * (t.stop - t.start)"
    )
    for (turn,) in wrong:
        yield Finding("agent.db", f"turn {turn}", "it has not as many token ids as tokens")
    for turn in RuleStateRows(index).damaged() if deep else ():
        yield Finding("agent.db", f"rule state of turn {turn}", "the checksum differs")
    summed = {(number, page.page): page.filled for number in slots.segments() for page in slots.pages(number)}
    for range_, _ in slots.all_ranges():
        last = range_.stop - 1
        where = f"slots {range_.start} to {range_.stop} of segment {range_.segment}"
        if range_.stop > capacity:
            yield Finding("agent.db", where, f"a segment has only {capacity} slots")
        elif summed.get((range_.segment, last // PAGE_SLOTS), 0) <= last % PAGE_SLOTS:
            yield Finding("agent.db", where, "they have no checksums")


def _trail_findings(parts: StoreParts) -> Iterator[Finding]:
    """Does the trail say of the current branch what the turns and extents say?"""
    head = parts.index.head()
    if head is not None:
        walked = parts.turns.branch(head)
        found, mapped = parts.standing(parts.turns.get(head))
        if found.turns() != walked.turns() or mapped.runs() != parts.slots.mapped(walked).runs():
            yield Finding("agent.db", "table trail", "it does not say what the turns say")


def _segment_findings(
    segments: SegmentSet, slots: SlotRows, number: int, *, deep: bool
) -> tuple[tuple[int, int], list[Finding]]:
    path = segments.path(number)
    label = f"{path.parent.name}/{path.name}"
    flaw = flaw_of(path, segments.spec)
    if flaw is not None:
        return (0, 0), [Finding(label, *flaw, slots.turns_in(number, 0, segments.capacity))]
    if not deep:
        return (0, 0), []
    table = segments.table(number)
    listed = [(one.start, one.stop) for one in slots.scrubs() if one.segment == number]
    due = {page for start, stop in listed for page in page_range(start, stop)}  # zeros by the next opening
    findings = [
        Finding(
            label,
            f"slots {page * PAGE_SLOTS} to {page * PAGE_SLOTS + table.filled(page)} of {column}",
            "the checksum differs",
            slots.turns_in(number, page * PAGE_SLOTS, (page + 1) * PAGE_SLOTS),
        )
        for page in table.known_pages()
        if page not in due
        for column in table.wrong_columns(page)
    ]
    counts = len(table.known_pages()), table.bytes_checked
    table.close()
    return counts, findings


def _set_aside_findings(segments: SegmentSet, slots: SlotRows) -> Iterator[Finding]:
    for turn, start, stop, number, _ in slots.set_aside():
        path = segments.path(number)
        yield Finding(
            f"{path.parent.name}/{path.name}" if number >= 0 else "agent.db",
            f"tokens {start} to {stop} of turn {turn}",
            "they were damaged and are set aside, so that nothing attends to them; a repair with the model "
            "computes them again",
            [turn],
        )


def _digest_findings(slots: SlotRows, digests: DiskDigestLog, *, deep: bool) -> Iterator[Finding]:
    for _, stored in sorted(slots.digests().files.items()):
        flaw = digests.flaw(stored, deep=deep)
        if flaw is not None:
            label, where, detail = flaw
            yield Finding(label, where, f"{detail}; digests are computed again from the segments")
