"""What the engine's layers do beside matrix products, as Triton kernels; importing this package imports Triton.

    routed.py     the routed low-rank term of H-LoRA, added to a layer's output
    rows.py       RMSNorm, and SiLU(gate) · up
    rotary.py     position encoding, keys and values into the cache
    attention.py  attention of few new tokens to all before them, split over the cache

None reads anything of the device's on the host, so all may be captured in a CUDA graph. They round where transformers'
layers round, so that in 16 bits the same tokens come out.
"""

from healthgpt.engine.kernels.attention import attend
from healthgpt.engine.kernels.rotary import turn_and_keep
from healthgpt.engine.kernels.routed import add_routed
from healthgpt.engine.kernels.rows import gated, normed

__all__ = ["add_routed", "attend", "gated", "normed", "turn_and_keep"]
