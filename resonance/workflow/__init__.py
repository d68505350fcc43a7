"""The preset as a whole, studies collected in one file, and what a preset costs. Imports no torch."""
