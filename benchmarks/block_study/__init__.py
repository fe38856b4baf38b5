"""What blocks should be: ways of cutting and sharing them, judged by the attention that tokens truly get.

Reading order: cuts, choosing, ways, listening, watching, study, report.
"""
