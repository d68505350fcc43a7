"""Resonance RoPE and PosGen (Wang et al., Findings of ACL 2024): a reference implementation.

Rooms, from the bottom up (each imports only what stands before it):

encoding   the method itself; stands alone
hf         the swap into models of others; knows encoding alone
record     what every wing needs of a run; knows no task, model or metric
posgen     the synthetic half of the paper
llm        the language-model half; never imports posgen, nor posgen it
leval      L-Eval's questions to models of llm
workflow   the preset as a whole, studies, the plan
cli        puts the wings' commands together
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("resonance-rope")
except PackageNotFoundError:  # a source tree on sys.path that was never installed
    __version__ = "0+not-installed"
