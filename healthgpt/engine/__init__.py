"""The fast decoder: the network's weights as few matrix products, key-value buffers of its own, loops without waiting.

    linear.py       W, A and router of an H-LoRA layer as one product, B added to its result
    decoder.py      the LLM of one task: layers, positions, head
    cache.py        keys and values, and how much memory a request takes
    choosing.py     the next token out of the logits
    answering.py    texts: sequences that leave and join while others go on
    drawing.py      images: so many codes, no more and no fewer
    speculation.py  images by guessing codes ahead and checking them, with the same result
    engine.py       what the pipeline talks to

`healthgpt.generation`, transformers' own `generate`, is the oracle: the engine gives its tokens.
"""
