"""Chunks of rows, the table of their sizes, and memory levels."""

import ast
import dataclasses
from pathlib import Path

import pytest
import torch

from birefnet_core.ops import execution
from birefnet_core.ops.execution import ChunkSizes, chunk_elements, chunking, row_chunks

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
KINDS = [field.name for field in dataclasses.fields(ChunkSizes)]
OPS = Path(execution.__file__).parent


@pytest.mark.parametrize("kind", KINDS)
def test_each_level_halves_the_chunks(kind):
    sizes = []
    for level in range(execution.MAX_LEVEL + 1):
        with execution.use_memory_level(level):
            assert execution.memory_level() == level
            sizes.append((chunk_elements(kind, CPU), chunk_elements(kind, CUDA)))
    assert execution.memory_level() == 0
    on_cpu, on_device = zip(*sizes, strict=True)
    assert all(size == on_cpu[0] // 2**level for level, size in enumerate(on_cpu))
    assert all(size == on_device[1] // 2**level for level, size in enumerate(on_device[1:]))
    assert on_device[0] is None or on_device[0] > on_device[1]


def test_levels_end_at_the_highest():
    with execution.use_memory_level(99):
        assert execution.memory_level() == execution.MAX_LEVEL


def test_a_level_and_sizes_end_with_their_context():
    with pytest.raises(ZeroDivisionError), execution.use_memory_level(2), execution.use_chunk_sizes(map=3):
        assert chunk_elements("map", CPU) == chunk_elements("map", CUDA) == 3
        with execution.use_chunk_sizes(attention=4):
            assert (chunk_elements("map", CPU), chunk_elements("attention", CPU)) == (3, 4)
        raise ZeroDivisionError
    assert execution.memory_level() == 0 and chunk_elements("map", CPU) == 2**20


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("limit", [1, 10, 50, 10**9])
@pytest.mark.parametrize("multiple, minimum", [(1, 1), (4, 1), (1, 8), (2, 3)])
@torch.no_grad()
def test_chunks_cover_every_row_once_within_their_size(rows, limit, multiple, minimum):
    with execution.use_chunk_sizes(map=limit):
        chunks = list(row_chunks(rows, 5, "map", CPU, multiple=multiple, minimum=minimum))
    assert [row for chunk in chunks for row in range(chunk.start, chunk.stop)] == list(range(rows))
    sizes = [chunk.stop - chunk.start for chunk in chunks]
    assert all(size % multiple == 0 for size in sizes[:-1])
    assert max(sizes) <= max(limit // 5, minimum, multiple)


def test_a_map_is_one_chunk_under_autograd_and_where_there_is_no_limit():
    assert row_chunks(64, 2**20, "map", CPU) == [slice(0, 64)]
    assert len(row_chunks(64, 2**20, "map", CPU, always=True)) == 64
    with torch.no_grad():
        assert len(row_chunks(64, 2**20, "map", CPU)) == 64
        assert row_chunks(64, 2**20, "map", CUDA) == [slice(0, 64)]


def test_chunking_is_for_inference():
    x = torch.zeros(1)
    assert not chunking(x)
    with torch.inference_mode():
        assert chunking(x)
        assert not chunking(x, training=True)

        @torch.compile(backend="eager", fullgraph=True)
        def compiled(x):
            return x + chunking(x) + len(row_chunks(64, 2**20, "map", x.device))

        assert compiled(x).item() == 1


@pytest.mark.parametrize("path", sorted(OPS.rglob("*.py")), ids=lambda path: str(path.relative_to(OPS)))
def test_chunk_sizes_are_in_the_table_only(path):
    """No number of a hundred thousand or more, other than limits of an integer type, anywhere else."""
    if path.name == "execution.py":
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            assert node.value < 100_000, f"{path.name}:{node.lineno}"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.LShift):
            exponent = node.right.value if isinstance(node.right, ast.Constant) else 0
            assert not 10 <= exponent <= 30, f"{path.name}:{node.lineno}"
