"""How fast agentmem is beside what a user would take instead, and beside what the machine could do.

python -m benchmarks.speed           agentmem and its peers, interleaved, judged line by line
python -m benchmarks.speed.profile   every millisecond of one decoded token and of one chunk, by part
"""
