"""Every Triton kernel against float64: in Triton's interpreter without a GPU (in a process of its own), else on it."""

import contextlib
import functools
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
runs_kernels = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="done by the test in the interpreter"
)
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}
DTYPES = tuple(TOLERANCE)
# The interpreter multiplies the bits of bfloat16 matrices as if they were integers; float16 takes the same way there.
PRODUCT_DTYPES = (torch.float32, torch.float16) if INTERPRETED else DTYPES


@pytest.mark.skipif(INTERPRETED, reason="this is the interpreter")
def test_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
def test_every_kernel_compiles_for_a_gpu(tmp_path, monkeypatch):
    """In bfloat16 for Hopper, which needs no GPU: what the interpreter lets pass, the compiler may not."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from healthgpt.engine.kernels import attention, rotary, routed, rows

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    tile = {"ROUTED": True, "SCALED": True, "EXPERTS": 4}
    part = {"GROUP": 4, "SPLITS": 4, "WINDOWED": True, "ROWS": 16, "WIDTH": 128, "SLOTS": 64}
    kernels = [
        (routed._add_routed, {**tile, "ROWS": 1, "COLUMNS": 32, "RANKS": 256}),
        (routed._add_routed, {**tile, "ROWS": 16, "COLUMNS": 64, "RANKS": 64}),
        (rows._normed, {"WIDTH": 4096}),
        (rows._gated, {"WIDTH": 1024}),
        (rotary._turn_and_keep, {"WIDTH": 128}),
        (attention._attend_part, part),
        (attention._combine, {"SPLITS": 4, "WIDTH": 128}),
    ]
    types = {"positions": "*i64", "partial": "*fp32", "weights": "*fp32", "scale": "fp32", "epsilon": "fp32"}
    tensors = ("out", "x", "low", "gates", "up", "weight", "joined", "queries", "cos", "sin", "keys", "values")
    types |= dict.fromkeys(tensors, "*bf16")
    for kernel, constants in kernels:
        for kept in ("*bf16", "*fp8e4nv") if "keys" in kernel.arg_names else ("*bf16",):
            here = {**types, "keys": kept, "values": kept}
            signature = {name: "constexpr" if name in constants else here.get(name, "i32") for name in kernel.arg_names}
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            assert compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


@pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
@pytest.mark.parametrize(
    ("capability", "dtype", "width", "limit"),
    [(75, "fp16", 128, 65536), (75, "fp32", 128, 65536), (86, "bf16", 128, 101376), (86, "fp32", 128, 101376)],
)
def test_attention_fits_the_shared_memory_of_small_gpus(capability, dtype, width, limit, tmp_path, monkeypatch):
    """With as many rows as it is ever given; limits are the largest of a T4, and of an A10 or an RTX 30."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from healthgpt.engine.attention import _MOST_ROWS
    from healthgpt.engine.kernels import attention

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    slots = attention._SLOTS // (2 if dtype == "fp32" else 1)
    constants = {"GROUP": 1, "SPLITS": 1, "WINDOWED": True, "ROWS": _MOST_ROWS, "WIDTH": width, "SLOTS": slots}
    types = dict.fromkeys(("queries", "keys", "values", "partial"), f"*{dtype}")
    types |= {"positions": "*i64", "weights": "*fp32", "scale": "fp32"}
    kernel = attention._attend_part
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in kernel.arg_names}
    made = compile(
        ASTSource(fn=kernel, signature=signature, constexprs=constants),
        target=GPUTarget("cuda", capability, 32),
        options={"num_stages": 2},
    )
    assert made.metadata.shared <= limit


@pytest.mark.skipif(INTERPRETED, reason="the interpreter needs no GPU")
def test_a_gpu_without_kernels_is_told_of_once(monkeypatch, caplog):
    from healthgpt.engine import triton_use

    monkeypatch.setattr(triton_use, "_kernels_of", functools.cache(triton_use._kernels_of.__wrapped__))
    monkeypatch.setattr(triton_use, "on_device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(triton_use, "_failure", lambda dtype: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert triton_use.kernels_for(torch.zeros(1)) is None
    assert not caplog.records
    for _ in range(2):
        assert triton_use._kernels_of(0, torch.bfloat16) is None
    assert triton_use._kernels_of(0, torch.float16) is not None
    monkeypatch.setattr(triton_use, "_failure", lambda dtype: "Failed to find C compiler")
    for _ in range(2):
        assert triton_use._kernels_of(2, torch.float16) is None
    monkeypatch.setattr(triton_use.importlib.util, "find_spec", lambda name: None)
    assert triton_use._kernels_of(1, torch.float16) is None
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "Old GPU has no bfloat16 of its own",
        "Old GPU: Triton does not run here (Failed to find C compiler)",
        "Old GPU: Triton is not installed",
    ]


def randn(*size: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + sum(size))
    return torch.randn(*size, generator=generator).to(DEVICE, dtype)


def spread(x: torch.Tensor) -> torch.Tensor:
    """The same numbers, not dense: every other column of a wider tensor, whose rows are apart too."""
    wide = torch.full((*x.shape[:-1], 2 * x.shape[-1] + 3), torch.nan, dtype=x.dtype, device=x.device)
    view = wide[..., 1 : 1 + 2 * x.shape[-1] : 2]
    view.copy_(x)
    return view


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.shape == wanted.shape
    tolerance = TOLERANCE[found.dtype]
    torch.testing.assert_close(found.double(), wanted.double(), rtol=tolerance, atol=tolerance)


ROUTED = [
    # tokens, experts, rank, width
    (0, 4, 16, 40),
    (1, 1, 1, 5),
    (1, 4, 12, 33),
    (1, 32, 288, 70),
    (3, 2, 10, 33),
    (16, 4, 64, 65),
    (17, 3, 21, 130),
    (40, 32, 96, 48),
    (70, 8, 72, 20),
]


@runs_kernels
@pytest.mark.parametrize("dtype", PRODUCT_DTYPES)
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize(("tokens", "experts", "rank", "width"), ROUTED)
def test_routed_term(tokens, experts, rank, width, dense, dtype):
    from healthgpt.engine.kernels import add_routed

    out, low, gates, up = (
        randn(*size, dtype=dtype, seed=seed)
        for seed, size in enumerate(((tokens, width), (tokens, rank), (tokens, experts), (width, rank)))
    )
    up /= rank**0.5
    gates *= 30  # softmax at its edges too
    shares = gates.double().softmax(dim=1).repeat_interleave(rank // experts, dim=1)
    for used, scale in ((gates, 1.0), (gates, 0.3), (None, 1.7)):
        term = scale * low.double() * (shares if used is not None else 1)
        wanted = out.double() + term @ up.double().T
        views = [one if dense or one is None else spread(one) for one in (out.clone(), low, used, up)]
        assert dense or not views[0].is_contiguous() or not tokens
        add_routed(*views, scale)
        close(views[0], wanted)


@runs_kernels
def test_routed_term_beside_its_own_inputs():
    """Output, A's share and the router's are columns of one tensor, of which only the output's change."""
    from healthgpt.engine.kernels import add_routed

    whole, up = randn(5, 4 + 24 + 50), randn(50, 24)
    before = whole.double()
    gates, low, out = whole.split((4, 24, 50), dim=1)
    shares = before[:, :4].softmax(dim=1).repeat_interleave(6, dim=1)
    add_routed(out, low, gates, up, 1.0)
    close(out, before[:, 28:] + (shares * before[:, 4:28]) @ up.double().T)
    assert torch.equal(whole[:, :28].double(), before[:, :28])


@runs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "width"), [(0, 8), (1, 64), (5, 96), (2, 3072)])
def test_rows(tokens, width, dtype):
    from healthgpt.engine.kernels import gated, normed

    x, weight = randn(tokens, width, dtype=dtype), randn(width, dtype=dtype, seed=1)
    exact = x.double() * (x.double().square().mean(dim=1, keepdim=True) + 1e-5).rsqrt() * weight.double()
    joined = randn(tokens, 2 * width, dtype=dtype, seed=2)
    gate, up = joined.double().chunk(2, dim=1)
    for view in (lambda one: one, spread):
        close(normed(view(x), view(weight), 1e-5), exact)
        close(gated(view(joined)), F.silu(gate) * up)
    if dtype is torch.float16 and tokens:  # rounded where transformers rounds; the interpreter cuts bfloat16 off
        plain = x.float() * (x.float().square().mean(dim=1, keepdim=True) + 1e-5).rsqrt()
        differing = normed(x, weight, 1e-5) != weight * plain.to(dtype)
        assert differing.float().mean() < 0.01


@runs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "length", "heads", "kv_heads", "width", "turning"),
    [(1, 1, 2, 2, 96, 96), (3, 1, 4, 2, 8, 8), (2, 5, 5, 1, 24, 12), (0, 1, 2, 1, 8, 8)],
)
def test_turned_and_kept(batch, length, heads, kv_heads, width, turning, dtype):
    from healthgpt.engine.kernels import turn_and_keep

    joined = randn(batch * length, (heads + 2 * kv_heads) * width, dtype=dtype)
    angles = torch.rand(50, turning // 2, generator=torch.Generator().manual_seed(1)).to(DEVICE).repeat(1, 2)
    sign = torch.tensor([-1.0, 1.0], device=DEVICE).repeat_interleave(turning // 2)
    cos, sin = angles.cos().to(dtype), (sign * angles.sin()).to(dtype)
    positions = (torch.arange(batch) * 7 % 20).unsqueeze(1).add(torch.arange(length)).to(DEVICE)
    cache = torch.zeros(2, batch + 1, kv_heads, 40, width, dtype=dtype, device=DEVICE)
    queries = turn_and_keep(spread(joined), cos, sin, positions, cache[0], cache[1], heads)
    parts = joined.double().view(batch, length, heads + 2 * kv_heads, width)
    other = parts[..., :turning].unflatten(-1, (2, -1)).flip(-2).flatten(-2)
    turned = parts.clone()
    at = positions.unsqueeze(-1)
    turned[..., :turning] = parts[..., :turning] * cos.double()[at] + other * sin.double()[at]
    close(queries, turned[:, :, :heads])
    wanted = torch.zeros_like(cache, dtype=torch.float64)
    for row in range(batch):
        wanted[0, row, :, positions[row]] = turned[row, :, heads : heads + kv_heads].transpose(0, 1)
        wanted[1, row, :, positions[row]] = parts[row, :, heads + kv_heads :].transpose(0, 1)
    close(cache, wanted)


@runs_kernels
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_kept_in_8_bits(dtype):
    """Numbers beyond the largest, and none."""
    from healthgpt.engine.cache import as_kept
    from healthgpt.engine.kernels import turn_and_keep

    joined = 300 * randn(3, 3 * 16, dtype=dtype)
    if INTERPRETED:  # whose 8 bits have no NaN and round wrongly
        exact = as_kept(joined, torch.float8_e4m3fn).to(dtype)
        joined = torch.where(joined.abs() < 448, exact, joined)
    else:
        joined[1, 40] = torch.nan  # a value's
    cos, sin = torch.ones(8, 16, dtype=dtype, device=DEVICE), torch.zeros(8, 16, dtype=dtype, device=DEVICE)
    positions = torch.tensor([[2], [0], [7]], device=DEVICE)
    cache = torch.zeros(2, 3, 1, 8, 16, dtype=torch.float8_e4m3fn, device=DEVICE)
    turn_and_keep(joined, cos, sin, positions, cache[0], cache[1], 1)
    for kept, found in zip(cache, joined[:, 16:].split(16, dim=1), strict=True):
        assert found.abs().nan_to_num().max() > 448
        wanted = torch.zeros(3, 8, 16, device=DEVICE)
        wanted[torch.arange(3), positions[:, 0]] = as_kept(found, torch.float8_e4m3fn).float()
        torch.testing.assert_close(kept[:, 0].float(), wanted, equal_nan=True)


ATTENTIONS = [
    # batch, new tokens, heads, key-value heads, width, capacity, window
    (0, 1, 2, 2, 16, 64, None),
    (1, 1, 2, 2, 96, 320, None),
    (3, 1, 8, 2, 8, 192, None),
    (2, 5, 4, 4, 24, 192, None),
    (2, 16, 5, 1, 16, 192, None),
    (2, 3, 4, 2, 16, 256, 70),
    (1, 1, 2, 1, 16, 256, 9),
]


@runs_kernels
@pytest.mark.parametrize("dtype", PRODUCT_DTYPES)
@pytest.mark.parametrize("splits", [1, 4, None])
@pytest.mark.parametrize("in_8_bits", [False, True])
@pytest.mark.parametrize(("batch", "length", "heads", "kv_heads", "width", "capacity", "window"), ATTENTIONS)
def test_attention(batch, length, heads, kv_heads, width, capacity, window, splits, dtype, in_8_bits):
    """Sequences of unequal lengths, one of them just begun; what lies behind their ends is no number."""
    from healthgpt.engine.kernels import attend

    queries = randn(batch, length, heads, width, dtype=dtype)
    keys, values = randn(2, batch, kv_heads, capacity, width, dtype=dtype)
    if in_8_bits:
        keys, values = (one.to(torch.float8_e4m3fn).to(dtype) for one in (keys, values))
    starts = torch.linspace(0, capacity - length, batch + 1)[1:].long().flip(0)
    if batch > 1:
        starts[-1] = 0
    positions = starts.unsqueeze(1).add(torch.arange(length)).to(DEVICE)
    behind = positions.unsqueeze(-1) - torch.arange(capacity, device=DEVICE)
    seen = (behind >= 0) & (behind < (window or capacity))
    scores = torch.einsum(
        "blhw,bhsw->bhls", queries.double(), keys.double().repeat_interleave(heads // kv_heads, dim=1)
    )
    shares = (scores / width**0.5).masked_fill(~seen.unsqueeze(1), -torch.inf).softmax(dim=-1)
    wanted = torch.einsum("bhls,bhsw->blhw", shares, values.double().repeat_interleave(heads // kv_heads, dim=1))
    for row, start in enumerate(starts.tolist()):
        keys[row, :, start + length :] = values[row, :, start + length :] = torch.nan
    if in_8_bits:
        keys, values = (one.to(torch.float8_e4m3fn) for one in (keys, values))
    close(attend(queries, keys, values, positions, capacity, window, splits), wanted)


@runs_kernels
def test_a_decoder_by_kernels_gives_the_same_tokens(golden_model, monkeypatch):
    """The whole LLM on kernels, in float32: prompts of unequal lengths, then steps that nobody looks at."""
    from healthgpt.engine import attention, decoder, kernels, norm, routing
    from healthgpt.engine.prompts import EmbeddedPrompt
    from healthgpt.engine.stepping import Stepper

    if not INTERPRETED:
        pytest.skip("the golden models are on the CPU; test_a_gpu_gives_the_oracles_tokens is for a GPU")
    network = next(iter(golden_model._engine._decoders.values()))
    monkeypatch.setattr(network, "_small", None)
    rows = [randn(length, network.embeddings.shape[1], seed=1) for length in (6, 3)]
    prompts = [EmbeddedPrompt(shared=None, own=own) for own in rows]
    tokens, logits = [], []
    for used in (None, kernels):
        for module in (attention, decoder, norm, routing):
            monkeypatch.setattr(module, "kernels_for", lambda tensor, used=used: used)
        with torch.inference_mode():
            stepper = Stepper(network, slice(None), len(prompts), 20, 5)
            stepper.begin(range(len(prompts)), prompts)
            for _ in range(4):
                stepper.step()
        tokens.append(stepper.ids)
        logits.append(stepper.largest)
    assert torch.equal(*tokens)
    close(*logits)
