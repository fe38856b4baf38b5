"""Lets `python -m agentmem.cli` be the command line too."""

from agentmem.cli.app import main

if __name__ == "__main__":
    main()
