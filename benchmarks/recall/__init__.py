"""Recall benchmark: what is answered after the memory has let the words go, task by length by arm."""
