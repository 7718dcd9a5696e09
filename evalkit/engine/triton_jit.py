"""The kernels of triton_kernels, in Triton's language: Python's syntax, compiled for the GPU.

Each rounds where the formula that it stands for rounds. Sizes of a model are constants (tl.constexpr), so that accesses
to memory are as wide as they can be; the number of tokens, strides and offsets are plain numbers on which Triton does
not specialise. Strides come in units that they are multiples of, which tells the compiler how they are aligned. Masks
depend on constants alone, for the same reason.
"""

# Triton reads the names of these functions' parameters and of nothing else: annotations are its own, mypy looks away.
import triton
import triton.language as tl


@triton.jit(
    do_not_specialize=(
        "num_tokens",
        "query_batch",
        "query_token",
        "query_head",
        "key_batch",
        "key_token",
        "key_head",
        "table",
    )
)
def rotary(
    query,
    key,
    cos,
    sin,
    query_out,
    key_out,
    num_tokens,
    query_batch,
    query_token,
    query_head,
    key_batch,
    key_token,
    key_head,
    table,
    heads: tl.constexpr,
    kv_heads: tl.constexpr,
    half: tl.constexpr,
    padded_heads: tl.constexpr,
    padded_half: tl.constexpr,
    unit: tl.constexpr,
):
    """A token's queries, or its keys, in each program."""
    row = tl.program_id(0).to(tl.int64)
    batch = row // num_tokens
    token = row % num_tokens
    entry = (batch * table + token) * (2 * half)
    if tl.program_id(1) == 0:
        source = query + (batch * query_batch + token * query_token) * unit
        target = query_out + row * (heads * 2 * half)
        _rotate(source, target, cos + entry, sin + entry, query_head, heads, half, padded_heads, padded_half, unit)
    else:
        source = key + (batch * key_batch + token * key_token) * unit
        target = key_out + row * (kv_heads * 2 * half)
        _rotate(source, target, cos + entry, sin + entry, key_head, kv_heads, half, padded_heads, padded_half, unit)


@triton.jit
def _rotate(
    source,
    target,
    cos,
    sin,
    stride,
    heads: tl.constexpr,
    half: tl.constexpr,
    padded_heads: tl.constexpr,
    padded_half: tl.constexpr,
    unit: tl.constexpr,
):
    """All heads of one token: states * cos + (-second half, first half) * sin."""
    head = tl.arange(0, padded_heads)[:, None]
    place = tl.arange(0, padded_half)[None, :]
    inside = (head < heads) & (place < half)
    at = head * stride * unit + place
    first = tl.load(source + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(source + half + at, mask=inside, other=0.0).to(tl.float32)
    known = place < half
    first_cos = tl.load(cos + place, mask=known, other=0.0)
    second_cos = tl.load(cos + half + place, mask=known, other=0.0)
    first_sin = tl.load(sin + place, mask=known, other=0.0)
    second_sin = tl.load(sin + half + place, mask=known, other=0.0)
    turned_first = _products(first, first_cos, -second, first_sin)
    turned_second = _products(second, second_cos, first, second_sin)
    to = head * (2 * half) + place
    tl.store(target + to, turned_first.to(target.dtype.element_ty), mask=inside)
    tl.store(target + half + to, turned_second.to(target.dtype.element_ty), mask=inside)


@triton.jit
def _products(states, cos, others, sin):
    """states * cos + others * sin in float32; each product is rounded to the table's dtype, as torch would."""
    straight = states * cos.to(tl.float32)
    across = others * sin.to(tl.float32)
    return straight.to(cos.dtype).to(tl.float32) + across.to(cos.dtype).to(tl.float32)


@triton.jit
def gated(gate, up, out, width: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    place = tl.program_id(1) * block + tl.arange(0, block)
    inside = place < width
    raw = tl.load(gate + row + place, mask=inside, other=0.0)
    wide = raw.to(tl.float32)
    opened = (wide / (1.0 + tl.exp(-wide))).to(raw.dtype)
    other = tl.load(up + row + place, mask=inside, other=0.0)
    tl.store(out + row + place, (opened.to(tl.float32) * other.to(tl.float32)).to(raw.dtype), mask=inside)


@triton.jit
def add_norm(residual, states, weight, total, normed, epsilon, width: tl.constexpr, block: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    place = tl.arange(0, block)
    inside = place < width
    before = tl.load(residual + row + place, mask=inside, other=0.0)
    added = tl.load(states + row + place, mask=inside, other=0.0)
    scale = tl.load(weight + place, mask=inside, other=0.0)
    rounded = (before.to(tl.float32) + added.to(tl.float32)).to(before.dtype)
    tl.store(total + row + place, rounded, mask=inside)
    wide = rounded.to(tl.float32)
    unit = (wide * tl.rsqrt(tl.sum(wide * wide, axis=0) / width + epsilon)).to(before.dtype)
    tl.store(normed + row + place, (scale.to(tl.float32) * unit.to(tl.float32)).to(before.dtype), mask=inside)


@triton.jit(do_not_specialize=("start", "lse_stride"))
def merge(
    total,
    total_lse,
    out,
    lse,
    start,
    lse_stride,
    heads: tl.constexpr,
    size: tl.constexpr,
    padded_heads: tl.constexpr,
    padded_size: tl.constexpr,
):
    """Some heads of one row in each program, which is to be of one warp: of several, one would read what another has
    written already."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * padded_heads + tl.arange(0, padded_heads)
    known = head < heads
    old_at = total_lse + (start + row) * heads + head
    old = tl.load(old_at, mask=known, other=0.0)
    new = tl.load(lse + head.to(tl.int64) * lse_stride + row, mask=known, other=0.0)
    most = tl.maximum(old, new)
    share, rest = tl.exp(new - most), tl.exp(old - most)
    tl.store(old_at, most + tl.log(share + rest), mask=known)
    weight = (share / (share + rest))[:, None]
    place = tl.arange(0, padded_size)[None, :]
    inside = known[:, None] & (place < size)
    at = head[:, None] * size + place
    total_at = total + (start + row) * (heads * size) + at
    sofar = tl.load(total_at, mask=inside, other=0.0).to(tl.float32)
    part = tl.load(out + row * (heads * size) + at, mask=inside, other=0.0).to(tl.float32)
    merged = sofar + weight * (part - sofar)
    tl.store(total_at, merged.to(total.dtype.element_ty), mask=inside)
