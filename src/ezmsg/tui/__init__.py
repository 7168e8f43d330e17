"""What terminals show of a running graph: `ezmsg top`, and the widgets that the programs in `examples/` are made of.

Stands beside `ezmsg.core` and uses only what every program may use: a GraphContext and the records of `graphmeta`.
Nothing in `ezmsg.core` imports it; `ezmsg top` loads it when it runs. `figures`, `histograms`, `measures`, `names`,
`session`, `table` and `topology` need no Textual; all other modules do (`pip install 'ezmsg[tui]'`).
"""
