"""What every wing needs of a run: settings' base, files, rows, identity, provenance, progress, statistics.

Knows no task, model or metric. Imports `encoding.spec` and `encoding.methods`, and no torch (`checkpoint` aside).
"""
