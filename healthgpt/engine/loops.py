"""A layer of the LLM for few tokens on a CPU, as loops that Numba compiles.

PyTorch does the same in some seventy operators, and starting them takes longer than their work where a layer is small.
What is here knows arrays only; `small_passes` says which.

Legend: N tokens, B sequences of L of them, D width, R rank, E experts, H heads, H_kv key-value heads, W head width.
"""

from __future__ import annotations

import math

import numba
import numpy as np

# Sums may be taken in any order, as in matrix products; NaN stays NaN.
_options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract", "reassoc", "nsz"}}
_compiled = numba.njit(cache=True, **_options)  # once per machine, kept beside this file or in the user's cache
_part = numba.njit(**_options)  # of one of those


@_compiled
def read_layer(x, layer, number, epsilon, heads, angles, positions, seen, window, keys, values):
    """What a layer adds to x, (N, D), is added there, and keys and values of the tokens go into the cache.

    Args:
        layer: norm (D,), queries, out, second norm (D,), gates, down; all but the norms as `_linear` takes them.
        number: of the layer, in keys and values.
        angles: cos and signed sin of every position, (S, rotated width) each.
        positions: (B, L). seen: (B, L, S), what each token sees; empty where that is all up to itself.
        window: tokens that one sees, itself included.
        keys, values: (layers, sequences, H_kv, capacity, W).
    """
    norm, queries, out, second_norm, gates, down = layer
    normed = np.empty_like(x)
    _normalise(x, norm, epsilon, normed)
    joined = _linear(normed, queries)
    attended = np.zeros((len(x), heads * keys.shape[4]), np.float32)
    _turn_and_keep(joined, heads, angles, positions, keys[number], values[number])
    _attend(joined, heads, positions, seen, window, keys[number], values[number], attended)
    _add(x, _linear(attended, out))
    _normalise(x, second_norm, epsilon, normed)
    _add(x, _linear(_gated(_linear(normed, gates)), down))


@_compiled
def normalise(x, weight, epsilon):
    """RMSNorm in place, (N, D)."""
    _normalise(x, weight, epsilon, x)


@_part
def _normalise(x, weight, epsilon, out):
    for n in range(len(x)):
        row, target = x[n], out[n]
        total = np.float32(0)
        for d in range(len(row)):
            total += row[d] * row[d]
        factor = np.float32(1 / math.sqrt(total / len(row) + epsilon))
        for d in range(len(row)):
            target[d] = row[d] * factor * weight[d]


@_compiled
def product(x, matrix):
    """x · matrixᵀ, (N, D) and (rows, D) -> (N, rows); a row is read once, for four tokens at a time."""
    out = np.empty((len(x), len(matrix)), np.float32)
    whole = len(x) // 4 * 4
    for r in range(len(matrix)):
        row = matrix[r]
        for n in range(0, whole, 4):
            x0, x1, x2, x3 = x[n], x[n + 1], x[n + 2], x[n + 3]
            t0, t1, t2, t3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for d in range(len(row)):
                t0 += x0[d] * row[d]
                t1 += x1[d] * row[d]
                t2 += x2[d] * row[d]
                t3 += x3[d] * row[d]
            out[n, r], out[n + 1, r], out[n + 2, r], out[n + 3, r] = t0, t1, t2, t3
        for n in range(whole, len(x)):
            last, total = x[n], np.float32(0)
            for d in range(len(row)):
                total += last[d] * row[d]
            out[n, r] = total
    return out


@_part
def _linear(x, layers):
    """Layers with a common input, (N, D) -> (N, sum of their widths).

    Args:
        layers: matrix (rows, D); bias, empty or (widths,); Bᵀ of up to three adapters, (R, width) each; spans: of W
            [its first row, rows, -, -, -, -], and of each adapter [A's first row, R, the router's first or -1, E,
            first of the widths, width]; scales of the adapters.
    """
    matrix, bias, up_1, up_2, up_3, spans, scales = layers
    everything = product(x, matrix)
    out = np.empty((len(x), spans[0, 1]), np.float32)
    own = spans[0, 0]
    for n in range(len(x)):
        for i in range(spans[0, 1]):
            out[n, i] = everything[n, own + i] + bias[i] if len(bias) else everything[n, own + i]
    for number in range(1, len(spans)):
        low, rank, gates, experts = spans[number, 0], spans[number, 1], spans[number, 2], spans[number, 3]
        start, width = spans[number, 4], spans[number, 5]
        up = up_1 if number == 1 else up_2 if number == 2 else up_3
        for n in range(len(x)):
            shared = everything[n, low : low + rank]
            for r in range(rank):
                shared[r] *= scales[number - 1]
            if gates >= 0:
                shares = everything[n, gates : gates + experts]
                _softmax(shares)
                for r in range(rank):
                    shared[r] *= shares[r // (rank // experts)]
            _add_columns(shared, up, out[n, start : start + width])
    return out


@_part
def _add_columns(low, up, out):
    """out += low · up, (R,) and (R, width) -> (width,); four at a time, as out is read and written each time."""
    whole = len(low) // 4 * 4
    for r in range(0, whole, 4):
        a, b, c, d = up[r], up[r + 1], up[r + 2], up[r + 3]
        p, q, s, t = low[r], low[r + 1], low[r + 2], low[r + 3]
        for i in range(len(out)):
            out[i] += p * a[i] + q * b[i] + s * c[i] + t * d[i]
    for r in range(whole, len(low)):
        row, factor = up[r], low[r]
        for i in range(len(out)):
            out[i] += factor * row[i]


@_part
def _turn_and_keep(joined, heads, angles, positions, keys, values):
    """Turns queries, in place, and keys; these and values go into the cache, (sequences, H_kv, S, W)."""
    cos, sin = angles
    kv_heads, width = keys.shape[1], keys.shape[3]
    length = positions.shape[1]
    for n in range(len(joined)):
        sequence, position = n // length, positions[n // length, n % length]
        for head in range(heads):
            query = joined[n, head * width : (head + 1) * width]
            _turn(query, cos[position], sin[position], query)
        for head in range(kv_heads):
            start = (heads + head) * width
            _turn(joined[n, start : start + width], cos[position], sin[position], keys[sequence, head, position])
            for d in range(width):
                values[sequence, head, position, d] = joined[n, start + kv_heads * width + d]


@_part
def _turn(x, cos, sin, out):
    half = len(cos) // 2
    for d in range(half):
        left, right = x[d], x[half + d]
        out[d] = left * cos[d] + right * sin[d]
        out[half + d] = right * cos[half + d] + left * sin[half + d]
    for d in range(len(cos), len(x)):
        out[d] = x[d]


@_part
def _attend(joined, heads, positions, seen, window, keys, values, out):
    """Adds what each token sees of the cache to out, (N, H W); queries are the first of what is joined."""
    width, group = keys.shape[3], heads // keys.shape[1]
    length = positions.shape[1]
    factor = np.float32(1 / math.sqrt(width))
    for n in range(len(joined)):
        sequence, place = n // length, n % length
        end = positions[sequence, place] + 1
        start = max(0, end - window)
        for head in range(heads):
            query = joined[n, head * width : (head + 1) * width]
            target = out[n, head * width : (head + 1) * width]
            shares = np.empty(end - start, np.float32)
            for s in range(start, end):
                key = keys[sequence, head // group, s]
                total = np.float32(0)
                for d in range(width):
                    total += query[d] * key[d]
                shares[s - start] = total * factor
                if seen.size and not seen[sequence, place, s]:
                    shares[s - start] = -np.inf
            _softmax(shares)
            for s in range(start, end):
                share, value = shares[s - start], values[sequence, head // group, s]
                for d in range(width):
                    target[d] += share * value[d]


@_part
def _softmax(x):
    largest = x[0]
    for i in range(len(x)):
        largest = max(largest, x[i])
    total = np.float32(0)
    for i in range(len(x)):
        x[i] = math.exp(x[i] - largest)
        total += x[i]
    for i in range(len(x)):
        x[i] /= total


@_part
def _gated(joined):
    """(N, 2 I) gate and what it lets through -> silu(gate) ⊙ that, (N, I)"""
    width = joined.shape[1] // 2
    out = np.empty((len(joined), width), np.float32)
    for n in range(len(joined)):
        for d in range(width):
            gate = joined[n, d]
            out[n, d] = gate / (np.float32(1) + math.exp(-gate)) * joined[n, width + d]
    return out


@_part
def _add(x, more):
    for n in range(len(x)):
        for d in range(x.shape[1]):
            x[n, d] += more[n, d]
