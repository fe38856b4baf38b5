"""The engine: language models, bound so that attention reads an agent's memory. Knows no files of agents."""
