"""MultiDay: a person talks with an assistant for days, then asks about it. Everything is written here.

The form and the JSON schema are LongMemEval's (arXiv 2410.10813), with abstention as a kind of its own and
forgetting added; that an answer must vanish with any one of its messages is ConvoMem's rule. To be read in this
order: `texts/` (what is said), `facts` (what follows from it), `storylines`, `plots` and `sums_and_days` (what
leads to a question), `cast` (how many of each), `sessions` and `chats` (where it stands), `generator`,
`validity` (what is checked without a model), `clauses` and `judge`, `task`.
"""
