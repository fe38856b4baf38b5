"""Gate 9: random verbs on a store on disk and on one in memory; after each, all that can be seen is equal."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as seeded
from hypothesis.stateful import run_state_machine_as_test

from faults import children
from faults.results import Found
from support.store_model import EncryptedStoreModel, StoreModel

LIVES = 20
"""Lives in one share of the work."""
_STEPS = "steps "


@dataclass(frozen=True)
class Share:
    """So many lives of so many steps, from a seed."""

    machine: type[StoreModel]
    lives: int
    steps: int
    seed: int


def beside_memory(*, lives: int, steps: int, seed: int, jobs: int) -> Found:
    """So many lives of at most so many steps: every third one of an encrypted agent."""
    shares = [
        Share(EncryptedStoreModel if n % 3 == 2 else StoreModel, min(LIVES, lives - at), steps, seed + n)
        for n, at in enumerate(range(0, lives, LIVES))
    ]
    said = children.spread(shares, _lived, jobs)
    taken = sum(int(text.removeprefix(_STEPS)) for text in said if text.startswith(_STEPS))
    failures = [text for text in said if not text.startswith(_STEPS)]
    on = f"steps of {lives} lives, a third of them encrypted; a store on disk beside one in memory"
    return Found(taken, failures, on)


def _lived(share: Share) -> list[str]:
    """How many steps were taken, and what went wrong: hypothesis tells the shortest life that does."""
    before = StoreModel.steps
    how = settings(
        max_examples=share.lives,
        stateful_step_count=share.steps,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    failures = []
    try:
        run_state_machine_as_test(seeded(share.seed)(share.machine), settings=how)
    except Exception as error:  # noqa: BLE001 - whatever a life raises is a failure
        notes = "; ".join(getattr(error, "__notes__", ()))
        failures.append(f"seed {share.seed}: {type(error).__name__}: {error} {notes}"[:4000])
    return [f"{_STEPS}{StoreModel.steps - before}", *failures]
