"""The fast decoder: the network's weights as few matrix products, key-value buffers of its own, loops without waiting.

    linear.py       W, A and router of an H-LoRA layer as one product, B added to its result
    routing.py      that addition
    rounded.py      W in 8 bits, for few tokens, where that is asked for
    attention.py    positions, keys and values, what a token sees
    decoder.py      the LLM of one task: layers, head
    norm.py         RMSNorm
    prompts.py      prompts into the cache, what they share once
    kernels/        what the layers do beside products, in Triton; triton_use.py says where it runs
    loops.py        a layer for few tokens on a CPU, compiled by Numba; numba_use.py says where it runs
    small_passes.py passes of few tokens by those loops
    cache.py        keys and values; memory.py asks whether they fit before they are made
    choosing.py     the next token out of the logits
    answering.py    texts: sequences that leave and join while others go on
    drawing.py      images: so many codes, no more and no fewer
    speculation.py  images by guessing codes ahead and checking them, with the same result
    side_by_side.py images by several rows at once, where that is asked for
    stepping.py     greedy steps that the host does not look at; graphs.py makes CUDA graphs of them
    cohorts.py      texts by such steps
    engine.py       what the pipeline talks to

`healthgpt.generation`, transformers' own `generate`, is the oracle: the engine gives its tokens.
"""
