"""The LangChain adapter of agentmem. Its classes come with a later release."""
