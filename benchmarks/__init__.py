"""Measurements of agentmem, each with a command that prints it again."""
