"""`python -m resonance ...`: the command line, also where the package is not installed."""

from resonance.cli import main

main()
