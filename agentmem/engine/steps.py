"""Agents that wait for a decoding step at the same time get it in one pass of the model.

Decoding is bound by reading the weights, so four rows take little longer than one. There is no thread of its own:
of those who wait, the first runs a pass for all. It waits for others only if they had a step in the pass before,
only for a part of that pass's time, and once in vain, so that an agent alone loses nothing, agents in step stay so,
and streams that are read in turns do not wait for each other. What one row raises is its own; each row has its own attention and the bits it would have alone, unless asked otherwise.
Knows no logs, no sampling and no text.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Hashable
from typing import Literal

import torch
from torch import Tensor

from agentmem.engine.attention import AttentionContext
from agentmem.engine.binding import Binding
from agentmem.engine.likeness import Likeness
from agentmem.engine.rows import ROWS
from agentmem.errors import ConfigError, ModelError

BatchRule = Literal["exact", "always", "never"]
"""When steps share a pass: where it cannot be told from the bits; always, equal up to rounding; never."""
_RULES = ("exact", "always", "never")
PATIENCE = 0.5
"""For so large a part of the last pass's time those of that pass are waited for."""


class _Step:
    """One agent's step, from its asking to its end."""

    def __init__(self, owner: Hashable, token: int, context: AttentionContext) -> None:
        self.owner = owner
        self.token = token
        self.context = context
        self.logits: Tensor | None = None
        self.error: BaseException | None = None
        self.done = False


class _Meeting:
    """Where threads meet. Everything is read and changed under ``changed``'s lock."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.changed = threading.Condition()
        self.waiting: list[_Step] = []
        self.running = False
        self.served: set[Hashable] = set()
        """Who had a step in the last pass."""
        self.until = 0.0
        """Until when they are waited for."""
        self.late: set[Hashable] = set()
        """Who was waited for in vain, and has not been in step with others since."""

    def join(self, step: _Step) -> None:
        """Begin to wait."""
        with self.changed:
            self.waiting.append(step)
            in_time = step.owner in self.served and time.monotonic() < self.until
            if self.running or in_time:
                self.late.discard(step.owner)
            self.served.discard(step.owner)
            self.changed.notify_all()

    def next_pass(self, step: _Step, most: int) -> list[_Step]:
        """Wait until the step is done (then empty), or it is this thread's turn to run a pass of these."""
        with self.changed:
            try:
                while not step.done:
                    if self.running or self.waiting[0] is not step:
                        self.changed.wait()
                    elif (patience := self._patience(most)) > 0:
                        self.changed.wait(patience)
                    else:
                        if len(self.waiting) < most:
                            self.late |= self.served
                        self.running = True
                        taken, self.waiting = self.waiting[:most], self.waiting[most:]
                        return taken
            except BaseException:
                self._withdraw(step)
                raise
        return []

    def _patience(self, most: int) -> float:
        """Seconds for which waiting for more steps is worth while."""
        expected = len(self.waiting) < most and not self.served <= self.late
        return self.until - time.monotonic() if expected else 0.0

    def _withdraw(self, step: _Step) -> None:
        """Interrupted while waiting. What a pass has taken is used by it until it ends, and so is waited for."""
        if step in self.waiting:
            self.waiting.remove(step)
            self.changed.notify_all()
        while self.running and not step.done and step not in self.waiting:
            try:
                self.changed.wait()
            except KeyboardInterrupt:
                continue

    def ended(self, taken: list[_Step], seconds: float) -> None:
        """A pass is over: wake everyone."""
        with self.changed:
            self.running = False
            self.served = {step.owner for step in taken if step.error is None}
            self.until = time.monotonic() + PATIENCE * seconds
            for step in taken:
                step.done = True
            self.changed.notify_all()

    def leave(self, owner: Hashable) -> None:
        """Nobody need wait for it."""
        with self.changed:
            self.served.discard(owner)
            self.late.discard(owner)
            self.changed.notify_all()


class Steps:
    """The decoding steps of all agents on one bound model. Many threads may ask at once."""

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._likeness = Likeness(binding)
        self._meeting = _Meeting()
        self._rule: BatchRule = "exact"

    @property
    def rule(self) -> BatchRule:
        """When steps share a pass."""
        return self._rule

    def set_rule(self, rule: BatchRule) -> None:
        """Change it for all agents, from their next steps on. Raises ConfigError for one that does not exist."""
        if rule not in _RULES:
            raise ConfigError(f"batch rule {rule!r}: expected one of {', '.join(_RULES)}")
        self._rule = rule

    def step(self, owner: Hashable, token: int, context: AttentionContext) -> Tensor:
        """Forward one token; returns the logits (V,) behind it.

        ``owner`` is the same for all steps of one reply; ``context`` is used by another thread until this returns.

        Raises whatever the model or the context raises; ModelError when another thread, which ran the pass, was
        interrupted.
        """
        most = self._most()
        if most == 1:
            return self._alone(token, context)
        meeting = self._here()
        step = _Step(owner, token, context)
        meeting.join(step)
        while taken := meeting.next_pass(step, most):
            started = time.monotonic()
            try:
                self._run(taken)
            except BaseException as error:
                _fail(taken, error)
                raise
            finally:
                meeting.ended(taken, time.monotonic() - started)
        if step.error is not None:
            raise step.error
        assert step.logits is not None, "a step that is done has logits or an error"
        return step.logits

    def leave(self, owner: Hashable) -> None:
        """It will ask for no more steps."""
        self._here().leave(owner)

    def _most(self) -> int:
        """How many steps may share a pass."""
        if self._rule == "exact":
            return self._likeness.most
        return ROWS if self._rule == "always" else 1

    def _here(self) -> _Meeting:
        """The meeting of this process: a forked child has not the threads that its parent's waits for."""
        if self._meeting.process != os.getpid():
            self._meeting = _Meeting()
        return self._meeting

    def _run(self, taken: list[_Step]) -> None:
        """Run steps: together, or one after the other where together would be told from the bits."""
        together = len(taken) > 1 and (self._rule != "exact" or self._likeness.holds(len(taken)))
        if together:
            ids = torch.tensor(
                [[step.token] for step in taken], dtype=torch.int64, device=self._binding.device
            )
            logits, errors = self._binding.forward_rows(ids, [step.context for step in taken])
            for step, row, error in zip(taken, logits, errors, strict=True):
                step.logits, step.error = row.clone(), error
            return
        for step in taken:
            try:
                step.logits = self._alone(step.token, step.context)
            except Exception as error:  # noqa: BLE001 it is raised again, where the step was asked for
                step.error = error

    def _alone(self, token: int, context: AttentionContext) -> Tensor:
        ids = torch.tensor([[token]], dtype=torch.int64, device=self._binding.device)
        return self._binding.forward(ids, context)[0, -1]


def _fail(taken: list[_Step], error: BaseException) -> None:
    """Tell every step of a pass that failed as a whole."""
    for step in taken:
        if isinstance(error, Exception):
            step.error = error
        else:
            step.error = ModelError(
                "the thread that ran this step for several agents was interrupted; ask again"
            )
