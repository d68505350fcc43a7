"""Resonance RoPE and PosGen (Wang et al., Findings of ACL 2024): a reference implementation.

Rooms, from the bottom up (each imports only what stands before it):

encoding   the method itself; stands alone
record     what a run is and what it leaves behind
posgen     the synthetic half of the paper
llm        the language-model half; never imports posgen, nor posgen it
cli        parses, calls one function, exits
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("resonance-rope")
except PackageNotFoundError:  # a source tree on sys.path that was never installed
    __version__ = "0+not-installed"
