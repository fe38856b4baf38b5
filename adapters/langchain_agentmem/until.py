"""Finding a fixed text in a stream of characters without giving away its beginning."""

from __future__ import annotations


class Until:
    """Gives text on until a marker comes. The marker and the space before it are swallowed."""

    def __init__(self, marker: str) -> None:
        self._marker = marker
        self._space: list[str] = []
        self._partial = ""

    def push(self, character: str) -> tuple[str, bool]:
        """(text that is certain now, whether the marker is complete)."""
        self._partial += character
        if self._partial == self._marker:
            self._space, self._partial = [], ""
            return "", True
        certain: list[str] = []
        while self._partial and not self._marker.startswith(self._partial):
            first, self._partial = self._partial[0], self._partial[1:]
            if first.isspace():
                self._space.append(first)
            else:
                certain += [*self._space, first]
                self._space = []
        return "".join(certain), False

    def flush(self) -> str:
        """The text held back: no marker came."""
        held = "".join(self._space) + self._partial
        self._space, self._partial = [], ""
        return held
