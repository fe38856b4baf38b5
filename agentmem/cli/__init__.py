"""The command line: the verbs of agentmem for a terminal. Knows the public API and nothing below it."""

from agentmem.cli.app import main

__all__ = ["main"]
