"""agentmem: an agent's whole past, kept in the model's own KV cache on disk."""
