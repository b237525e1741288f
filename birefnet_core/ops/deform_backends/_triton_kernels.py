"""Triton kernels of the deformable convolution: forward, gradients of map, offsets and modulation, gradient of weights.

A program handles a tile of output positions of one image and loops over the kernel's taps. Offsets, modulation,
positions, bilinear weights and sums are float32; products have the dtype of the weights.

Shapes: C input channels, O output channels, P channels after the projection, T = TILE_H * TILE_W positions of a tile.
"""

# mypy: ignore-errors
# Triton's functions have no types: arguments are tensors of the kernel, or tl.constexpr.

import triton
import triton.language as tl


@triton.jit
def _tile(index, height, width, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """Image, rows and columns of a tile, and which of its positions exist. T each."""
    tiles_x = tl.cdiv(width, TILE_W)
    tiles = tl.cdiv(height, TILE_H) * tiles_x
    image = (index // tiles).to(tl.int64)
    tile = index % tiles
    position = tl.arange(0, TILE_H * TILE_W)
    row = tile // tiles_x * TILE_H + position // TILE_W
    column = tile % tiles_x * TILE_W + position % TILE_W
    return image, row, column, (row < height) & (column < width)


@triton.jit
def _address(row, column, row_stride, column_stride, WIDE: tl.constexpr):
    if WIDE:  # beyond 2^31 elements
        row = row.to(tl.int64)
        column = column.to(tl.int64)
    return row * row_stride + column * column_stride


@triton.jit
def _channel(index, stride, WIDE: tl.constexpr):
    """Where a channel begins: far away where channels are not last in memory."""
    if WIDE:
        index = tl.cast(index, tl.int64)
    return index * stride


@triton.jit
def _place(
    offset_ptr, mask_ptr, tap, row, column, valid, offset_channel, mask_channel,
    kernel_width, stride_y, stride_x, origin_y, origin_x, dilation_y, dilation_x,
    MASKED: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Where a tap samples, and the factor of each sample, NaN where the place is NaN. T each."""
    offset_ptr += _channel(2 * tap, offset_channel, WIDE)
    dy = tl.load(offset_ptr, mask=valid, other=0.0).to(tl.float32)
    dx = tl.load(offset_ptr + offset_channel, mask=valid, other=0.0).to(tl.float32)
    y = dy + (row * stride_y + origin_y + tap // kernel_width * dilation_y).to(tl.float32)
    x = dx + (column * stride_x + origin_x + tap % kernel_width * dilation_x).to(tl.float32)
    if MASKED:
        factor = tl.load(mask_ptr + _channel(tap, mask_channel, WIDE), mask=valid, other=0.0).to(tl.float32)
    else:
        factor = tl.full(y.shape, 1.0, tl.float32)
    return y, x, tl.where((y != y) | (x != x), float("nan"), factor)


@triton.jit
def _axis(place, length, valid):
    """Lower neighbour, distance from it, and whether it and the next one are in the map. T each.

    Places outside the map and NaN become -1 before the cast to integers, so every index is within [-1, length].
    """
    near = valid & (place >= -1.0) & (place < length)
    place = tl.where(near, place, -1.0)
    low = tl.floor(place)
    cell = low.to(tl.int32)
    return cell, place - low, near & (cell >= 0), near & (cell < length - 1)


@triton.jit
def _in_map(inside, channel, C: tl.constexpr, BLOCK_C: tl.constexpr):
    inside = inside[:, None]
    if C % BLOCK_C != 0:
        inside = inside & (channel < C)[None, :]
    return inside


@triton.jit
def _read(pointers, inside, channel, C: tl.constexpr, BLOCK_C: tl.constexpr):
    """Values of the map, zero outside it. T BLOCK_C in float32."""
    return tl.load(pointers, mask=_in_map(inside, channel, C, BLOCK_C), other=0.0).to(tl.float32)


@triton.jit
def _neighbours(y, x, height, width, valid, channel, C: tl.constexpr, WIDE: tl.constexpr):
    """Distances from the upper left neighbour, index of its channels, and which of the four are in the map."""
    top, down, in_top, in_bottom = _axis(y, height, valid)
    left, right, in_left, in_right = _axis(x, width, valid)
    cell = top * width + left
    if WIDE:
        cell = cell.to(tl.int64)
    index = (cell * C)[:, None] + channel[None, :]
    return down, right, index, in_top & in_left, in_top & in_right, in_bottom & in_left, in_bottom & in_right


@triton.jit
def _sample(
    x_ptr, y, x, factor, height, width, valid, channel,
    C: tl.constexpr, BLOCK_C: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """Bilinear samples times their factors. T BLOCK_C in float32."""
    down, right, index, in00, in01, in10, in11 = _neighbours(y, x, height, width, valid, channel, C, WIDE)
    cells = x_ptr + index
    low = down * factor
    high = factor - low
    low_right = low * right
    high_right = high * right
    sample = _read(cells, in00, channel, C, BLOCK_C) * (high - high_right)[:, None]
    sample += _read(cells + C, in01, channel, C, BLOCK_C) * high_right[:, None]
    cells += width * C
    sample += _read(cells, in10, channel, C, BLOCK_C) * (low - low_right)[:, None]
    sample += _read(cells + C, in11, channel, C, BLOCK_C) * low_right[:, None]
    return sample


@triton.jit
def _matrix(
    pointer, row, column, row_stride, column_stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """BLOCK_R x BLOCK_C of a matrix of ROWS x COLUMNS, zero beyond it."""
    pointers = pointer + row[:, None] * row_stride + column[None, :] * column_stride
    if ROWS % BLOCK_R == 0 and COLUMNS % BLOCK_C == 0:
        return tl.load(pointers)
    return tl.load(pointers, mask=(row < ROWS)[:, None] & (column < COLUMNS)[None, :], other=0.0)


@triton.jit
def _convolve(
    x_ptr, offset_ptr, mask_ptr, weight_ptr, row, column, valid, output,
    height, width, taps, kernel_width, stride_y, stride_x, origin_y, origin_x, dilation_y, dilation_x,
    offset_channel, mask_channel, weight_tap, weight_in, weight_out,
    C: tl.constexpr, OUT: tl.constexpr, TILE: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,
    MASKED: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The convolution at a tile of positions, for some output channels. T BLOCK_O in float32."""
    blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    total = tl.zeros([TILE, BLOCK_O], tl.float32)
    for step in range(taps * blocks):
        tap = step // blocks
        channel = step % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
        y, x, factor = _place(
            offset_ptr, mask_ptr, tap, row, column, valid, offset_channel, mask_channel,
            kernel_width, stride_y, stride_x, origin_y, origin_x, dilation_y, dilation_x, MASKED, WIDE,
        )  # fmt: skip
        sample = _sample(x_ptr, y, x, factor, height, width, valid, channel, C, BLOCK_C, WIDE)
        of_tap = weight_ptr + tap * weight_tap
        weight = _matrix(of_tap, channel, output, weight_in, weight_out, C, OUT, BLOCK_C, BLOCK_O)
        total = tl.dot(sample.to(weight.dtype), weight, total, input_precision=PRECISION)
    return total


@triton.jit
def _finish(total, bias_ptr, output, OUT: tl.constexpr, BIASED: tl.constexpr, RELU: tl.constexpr):
    if BIASED:
        total += tl.load(bias_ptr + output, mask=output < OUT, other=0.0).to(tl.float32)[None, :]
    if RELU:
        total = tl.where(total < 0, 0.0, total)  # keeps NaN, as torch does
    return total


@triton.jit(do_not_specialize=["height", "width", "out_height", "out_width", "origin_y", "origin_x"])
def forward(
    out_ptr, x_ptr, offset_ptr, mask_ptr, weight_ptr, bias_ptr, projection_ptr,
    height, width, out_height, out_width,
    taps, kernel_width, stride_y, stride_x, origin_y, origin_x, dilation_y, dilation_x,
    out_image, out_channel, out_row, out_column,
    offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column,
    weight_tap, weight_in, weight_out, projection_in, projection_out,
    C: tl.constexpr, OUT: tl.constexpr, PROJECTED: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr,
    BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_P: tl.constexpr,
    MASKED: tl.constexpr, BIASED: tl.constexpr, RELU: tl.constexpr, ACCUMULATE: tl.constexpr,
    WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Convolution, bias, ReLU and projection (none where PROJECTED is 0), stored or added to what is there.

    Grid: tiles of positions, blocks of output channels (one where there is a projection, which needs all of them).
    """
    image, row, column, valid = _tile(tl.program_id(0), out_height, out_width, TILE_H, TILE_W)
    x_ptr += image * height * width * C
    offset_ptr += image * offset_image + _address(row, column, offset_row, offset_column, WIDE)
    if MASKED:
        mask_ptr += image * mask_image + _address(row, column, mask_row, mask_column, WIDE)
    out_ptr += image * out_image + _address(row, column, out_row, out_column, WIDE)
    if PROJECTED == 0:
        output = tl.program_id(1) * BLOCK_O + tl.arange(0, BLOCK_O)
        result = _convolve(
            x_ptr, offset_ptr, mask_ptr, weight_ptr, row, column, valid, output,
            height, width, taps, kernel_width, stride_y, stride_x, origin_y, origin_x, dilation_y, dilation_x,
            offset_channel, mask_channel, weight_tap, weight_in, weight_out,
            C, OUT, TILE_H * TILE_W, BLOCK_C, BLOCK_O, MASKED, WIDE, PRECISION,
        )  # fmt: skip
        result = _finish(result, bias_ptr, output, OUT, BIASED, RELU)
    else:
        result = tl.zeros([TILE_H * TILE_W, BLOCK_P], tl.float32)
        for block in tl.static_range((OUT + BLOCK_O - 1) // BLOCK_O):
            hidden = block * BLOCK_O + tl.arange(0, BLOCK_O)
            total = _convolve(
                x_ptr, offset_ptr, mask_ptr, weight_ptr, row, column, valid, hidden,
                height, width, taps, kernel_width, stride_y, stride_x, origin_y, origin_x, dilation_y, dilation_x,
                offset_channel, mask_channel, weight_tap, weight_in, weight_out,
                C, OUT, TILE_H * TILE_W, BLOCK_C, BLOCK_O, MASKED, WIDE, PRECISION,
            )  # fmt: skip
            total = _finish(total, bias_ptr, hidden, OUT, BIASED, RELU)
            projected = tl.arange(0, BLOCK_P)
            projection = _matrix(
                projection_ptr, hidden, projected, projection_in, projection_out, OUT, PROJECTED, BLOCK_O, BLOCK_P
            )
            result = tl.dot(total.to(projection.dtype), projection, result, input_precision=PRECISION)
        output = tl.arange(0, BLOCK_P)
    pointers = out_ptr[:, None] + _channel(output, out_channel, WIDE)[None, :]
    channels: tl.constexpr = OUT if PROJECTED == 0 else PROJECTED
    stored = valid[:, None] & (output < channels)[None, :]
    if ACCUMULATE:
        result += tl.load(pointers, mask=stored, other=0.0).to(tl.float32)
    tl.store(pointers, result.to(out_ptr.dtype.element_ty), mask=stored)


@triton.jit
def _sum_channels(by_sample, value):
    return tl.sum(by_sample * value, axis=1)


@triton.jit
def _add(pointers, value, inside, channel, C: tl.constexpr, BLOCK_C: tl.constexpr):
    tl.atomic_add(pointers, value, mask=_in_map(inside, channel, C, BLOCK_C), sem="relaxed")


@triton.jit(do_not_specialize=["height", "width", "out_height", "out_width", "origin_y", "origin_x"])
def backward_samples(
    by_out_ptr, x_ptr, offset_ptr, mask_ptr, weight_ptr, by_x_ptr, by_offset_ptr, by_mask_ptr,
    height, width, out_height, out_width,
    taps, kernel_width, stride_y, stride_x, origin_y, origin_x, dilation_y, dilation_x,
    out_image, out_channel, out_row, out_column,
    offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column,
    weight_tap, weight_in, weight_out,
    C: tl.constexpr, OUT: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,
    MASKED: tl.constexpr, MAP: tl.constexpr, PLACES: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradients of the map (added to float32, channels last) and of offsets and modulation, in one pass over the taps.

    ``by_offset_ptr`` and ``by_mask_ptr`` are B, Ho, Wo, channels, dense. Grid: tiles of positions.
    """
    image, row, column, valid = _tile(tl.program_id(0), out_height, out_width, TILE_H, TILE_W)
    x_ptr += image * height * width * C
    by_x_ptr += image * height * width * C
    offset_ptr += image * offset_image + _address(row, column, offset_row, offset_column, WIDE)
    if MASKED:
        mask_ptr += image * mask_image + _address(row, column, mask_row, mask_column, WIDE)
    by_out_ptr += image * out_image + _address(row, column, out_row, out_column, WIDE)
    position = image * out_height * out_width + _address(row, column, out_width, 1, WIDE)
    by_offset_ptr += position * taps * 2
    by_mask_ptr += position * taps

    output = tl.arange(0, BLOCK_O)
    blocks_o: tl.constexpr = (OUT + BLOCK_O - 1) // BLOCK_O
    if blocks_o == 1:  # stays for all taps
        by_out_pointers = by_out_ptr[:, None] + output[None, :] * out_channel
        by_out = tl.load(by_out_pointers, mask=valid[:, None] & (output < OUT)[None, :], other=0.0)
    blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    by_y = tl.zeros([TILE_H * TILE_W], tl.float32)
    by_x = tl.zeros([TILE_H * TILE_W], tl.float32)
    by_factor = tl.zeros([TILE_H * TILE_W], tl.float32)
    for step in range(taps * blocks):
        tap = step // blocks
        channel = step % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
        y, x, factor = _place(
            offset_ptr, mask_ptr, tap, row, column, valid, offset_channel, mask_channel,
            kernel_width, stride_y, stride_x, origin_y, origin_x, dilation_y, dilation_x, MASKED, WIDE,
        )  # fmt: skip
        # Gradient of the samples: T BLOCK_C.
        of_tap = weight_ptr + tap * weight_tap
        if blocks_o == 1:
            weight = _matrix(of_tap, output, channel, weight_out, weight_in, OUT, C, BLOCK_O, BLOCK_C)
            by_sample = tl.dot(by_out, weight, input_precision=PRECISION)
        else:
            by_sample = tl.zeros([TILE_H * TILE_W, BLOCK_C], tl.float32)
            for block in tl.static_range(blocks_o):
                some = block * BLOCK_O + output
                pointers = by_out_ptr[:, None] + some[None, :] * out_channel
                by_some = tl.load(pointers, mask=valid[:, None] & (some < OUT)[None, :], other=0.0)
                weight = _matrix(of_tap, some, channel, weight_out, weight_in, OUT, C, BLOCK_O, BLOCK_C)
                by_sample = tl.dot(by_some, weight, by_sample, input_precision=PRECISION)

        down, right, index, in00, in01, in10, in11 = _neighbours(y, x, height, width, valid, channel, C, WIDE)
        up = 1.0 - down
        left = 1.0 - right
        if PLACES:
            cells = x_ptr + index
            sum00 = _sum_channels(by_sample, _read(cells, in00, channel, C, BLOCK_C))
            sum01 = _sum_channels(by_sample, _read(cells + C, in01, channel, C, BLOCK_C))
            sum10 = _sum_channels(by_sample, _read(cells + width * C, in10, channel, C, BLOCK_C))
            sum11 = _sum_channels(by_sample, _read(cells + width * C + C, in11, channel, C, BLOCK_C))
            first = step % blocks == 0
            by_y = tl.where(first, 0.0, by_y) + (left * (sum10 - sum00) + right * (sum11 - sum01)) * factor
            by_x = tl.where(first, 0.0, by_x) + (up * (sum01 - sum00) + down * (sum11 - sum10)) * factor
            by_factor = tl.where(first, 0.0, by_factor) + up * (left * sum00 + right * sum01)
            by_factor += down * (left * sum10 + right * sum11)
            stored = valid & (step % blocks == blocks - 1)
            element = by_offset_ptr.dtype.element_ty
            tl.store(by_offset_ptr + tap * 2, by_y.to(element), mask=stored)
            tl.store(by_offset_ptr + tap * 2 + 1, by_x.to(element), mask=stored)
            if MASKED:
                by_factor = tl.where((y == y) & (x == x), by_factor, float("nan"))
                tl.store(by_mask_ptr + tap, by_factor.to(by_mask_ptr.dtype.element_ty), mask=stored)
        if MAP:
            by_cells = by_x_ptr + index
            up *= factor
            down *= factor
            _add(by_cells, by_sample * (up * left)[:, None], in00, channel, C, BLOCK_C)
            _add(by_cells + C, by_sample * (up * right)[:, None], in01, channel, C, BLOCK_C)
            by_cells += width * C
            _add(by_cells, by_sample * (down * left)[:, None], in10, channel, C, BLOCK_C)
            _add(by_cells + C, by_sample * (down * right)[:, None], in11, channel, C, BLOCK_C)


@triton.jit(do_not_specialize=["height", "width", "out_height", "out_width", "origin_y", "origin_x", "tiles", "splits"])
def backward_weight(
    by_out_ptr, x_ptr, offset_ptr, mask_ptr, by_weight_ptr,
    height, width, out_height, out_width, tiles, splits,
    kernel_width, stride_y, stride_x, origin_y, origin_x, dilation_y, dilation_x,
    out_image, out_channel, out_row, out_column,
    offset_image, offset_channel, offset_row, offset_column,
    mask_image, mask_channel, mask_row, mask_column,
    C: tl.constexpr, OUT: tl.constexpr,
    TILE_H: tl.constexpr, TILE_W: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_O: tl.constexpr,
    MASKED: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Gradient of the weights, added to float32 K, C, O.

    Grid: taps, blocks of C times blocks of O, parts of the tiles of positions.
    """
    tap = tl.program_id(0)
    blocks_o: tl.constexpr = (OUT + BLOCK_O - 1) // BLOCK_O
    channel = tl.program_id(1) // blocks_o * BLOCK_C + tl.arange(0, BLOCK_C)
    output = tl.program_id(1) % blocks_o * BLOCK_O + tl.arange(0, BLOCK_O)
    total = tl.zeros([BLOCK_C, BLOCK_O], tl.float32)
    for tile in range(tl.program_id(2), tiles, splits):
        image, row, column, valid = _tile(tile, out_height, out_width, TILE_H, TILE_W)
        offsets = offset_ptr + image * offset_image + _address(row, column, offset_row, offset_column, WIDE)
        masks = mask_ptr
        if MASKED:
            masks = mask_ptr + image * mask_image + _address(row, column, mask_row, mask_column, WIDE)
        y, x, factor = _place(
            offsets, masks, tap, row, column, valid, offset_channel, mask_channel,
            kernel_width, stride_y, stride_x, origin_y, origin_x, dilation_y, dilation_x, MASKED, WIDE,
        )  # fmt: skip
        one = x_ptr + image * height * width * C
        sample = _sample(one, y, x, factor, height, width, valid, channel, C, BLOCK_C, WIDE)
        by_rows = by_out_ptr + image * out_image + _address(row, column, out_row, out_column, WIDE)
        pointers = by_rows[:, None] + output[None, :] * out_channel
        by_out = tl.load(pointers, mask=valid[:, None] & (output < OUT)[None, :], other=0.0)
        total = tl.dot(tl.trans(sample.to(by_out.dtype)), by_out, total, input_precision=PRECISION)
    pointers = by_weight_ptr + (tap * C + channel)[:, None] * OUT + output[None, :]
    tl.atomic_add(pointers, total, mask=(channel < C)[:, None] & (output < OUT)[None, :], sem="relaxed")
