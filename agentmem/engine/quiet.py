"""Keep transformers from writing to the user's terminal while it loads.

Its log level, its progress bars and Python's warnings are process-wide; they are put back as found.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
from transformers.utils import logging


@contextmanager
def quiet(*, swallow_stderr: bool = False) -> Iterator[None]:
    """No log lines below errors, no warnings, no bars; ``swallow_stderr`` for bars nothing turns off."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_bars = not are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            with redirect_stderr(io.StringIO()) if swallow_stderr else nullcontext():
                yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
            if not hub_bars:
                disable_progress_bars()
