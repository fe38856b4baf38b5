"""MultiDay: a person talks with an assistant for days, then asks about it. Written here, no downloads.

The form and the JSON schema are LongMemEval's (arXiv 2410.10813), with abstention as a kind of its own and
forgetting added; the validity rules are ConvoMem's.
"""
