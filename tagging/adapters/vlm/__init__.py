"""Vision-language models through transformers: one general adapter and one small module per family with own rules.

`options.py`, `words.py`, `source.py` and `memory.py` import nothing heavy; torch and transformers are imported by
`runtime.py`, which only `load()` calls.
"""

from __future__ import annotations
