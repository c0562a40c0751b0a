"""How fast a network decodes, in which way, and how near to the floor that its device sets.

floor.py      bytes and operations of a step by formula, and the time that they take at the least
ceilings.py   what the device moves and computes at the most, measured
shapes.py     networks of the released models' shapes with random weights, made where they are to run
subject.py    the network under measurement, and its prompts
original.py   decoding as the original does it
ways.py       all ways to decode
agreement.py  how far their tokens are the original's
measuring.py  rows: every way at every batch, in turns
figures.py    what the table says of a row
tables.py     Markdown; chart.py: bars
run.py        the whole of it
"""
