"""What a run is and what it leaves behind: settings, protocols, paths, result files, statistics.

Imports `encoding.spec` and no torch (`checkpoint` aside, which nothing here imports).
"""
