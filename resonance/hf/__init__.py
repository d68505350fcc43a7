"""Resonance in models of transformers: the swap, its config, its attention. Imports `encoding` alone."""
