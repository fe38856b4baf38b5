"""Lets `python -m agentmem` be the command line too."""

from agentmem.cli.app import main

if __name__ == "__main__":
    main()
