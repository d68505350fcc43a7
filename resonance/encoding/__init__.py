"""The method: rotary encodings as data, their frequencies, their tables and the rotation.

Imports nothing else of this package. `spec` and `frequencies` need numpy alone; `ops` and
`rotary` need torch and are therefore not imported here: `from resonance.encoding.rotary import
Rotary`.
"""

from resonance.encoding.frequencies import FrequencyTable, frequency_table
from resonance.encoding.spec import EncodingSpec

__all__ = ["EncodingSpec", "FrequencyTable", "frequency_table"]
