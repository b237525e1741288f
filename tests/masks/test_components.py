"""Connected components: compared with SciPy, and hand-drawn masks."""

import pytest
import torch
from scipy import ndimage

from birefnet_core.masks.components import fill_holes, keep_largest, label_components, remove_islands


def draw(*rows: str) -> torch.Tensor:
    """A mask from text: # is 1, a digit its tenths, a dot 0."""
    values = {"#": 1.0, ".": 0.0} | {str(n): n / 10 for n in range(10)}
    return torch.tensor([[[values[c] for c in row] for row in rows]])


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("share", [0.2, 0.41, 0.6, 0.9])
def test_labels_equal_scipy_s(connectivity, share, generator):
    inside = torch.rand(3, 61, 83, generator=generator) < share
    labels, count = label_components(inside, connectivity)
    structure, total = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2), 0
    for image, found in zip(inside, labels, strict=True):
        expected, components = ndimage.label(image.numpy(), structure)
        expected = torch.from_numpy(expected).long()
        assert torch.equal(found, torch.where(expected > 0, expected + total, 0))
        total += components
    assert count == total


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 9), (2, 9, 1), (1, 2, 2)])
def test_tiny_full_and_empty_masks(connectivity, shape):
    labels, count = label_components(torch.ones(shape, dtype=torch.bool), connectivity)
    assert count == shape[0]
    assert labels.flatten(1).unique(dim=1).flatten().tolist() == list(range(1, shape[0] + 1))
    labels, count = label_components(torch.zeros(shape, dtype=torch.bool), connectivity)
    assert (count, labels.sum()) == (0, 0)


def test_long_winding_paths_are_one_part():
    """A spiral and a comb: the worst case for labels that spread one pixel at a time."""
    comb = torch.zeros(1, 64, 64, dtype=torch.bool)
    comb[:, :, ::2] = True
    comb[:, 0, 1::4] = True
    comb[:, -1, 3::4] = True
    labels, count = label_components(comb, 4)
    assert count == 1
    assert torch.equal(labels > 0, comb)


def test_corners_join_the_subject_but_not_the_background():
    diagonal = draw("#..", ".#.", "..#").bool()
    assert label_components(diagonal, 8)[1] == 1
    assert label_components(diagonal, 4)[1] == 3
    assert label_components(diagonal.flip(2), 8)[1] == 1


def test_islands_below_the_area_go():
    masks = draw("##...#", "##....", ".....#", "...###")
    assert torch.equal(remove_islands(masks, 2), draw("##....", "##....", ".....#", "...###"))
    assert torch.equal(remove_islands(masks, 5), torch.zeros(1, 4, 6))
    assert torch.equal(remove_islands(masks, 1), masks)


def test_the_faint_fringe_of_an_island_goes_with_it_and_haze_stays():
    masks = torch.full((1, 20, 40), 0.01)
    masks[0, 2:18, 2:14] = 1
    masks[0, 9:11, 30:32] = 0.9
    cleaned = remove_islands(masks, 10)
    assert cleaned[0, 7:13, 28:34].max() == 0
    assert torch.equal(cleaned[:, :, :20], masks[:, :, :20])


def test_half_transparent_hair_holds_on_to_its_subject():
    masks = draw("##........", "##23232323", "##........")
    assert torch.equal(remove_islands(masks, 6), masks)


def test_largest_part_is_found_in_each_frame():
    first, second = draw("#..##", "#..##", "#...."), draw("...##", "#....", "#.#.#")
    kept = keep_largest(torch.cat([first, second, torch.zeros(1, 3, 5)]))
    # The second frame has two parts of two pixels: the first in reading order stays.
    expected = torch.cat([draw("...##", "...##", "....."), draw("...##", ".....", "....."), torch.zeros(1, 3, 5)])
    assert torch.equal(kept, expected)


def test_holes_up_to_the_area_are_filled():
    masks = draw("######", "#.#..#", "#.####", "######", "#.####")
    expected = draw("######", "######", "######", "######", "#.####")
    assert torch.equal(fill_holes(masks, 2), expected)
    assert torch.equal(fill_holes(masks, 1), masks)


def test_what_touches_the_border_is_no_hole():
    masks = draw("##.#", "#..#", "####")
    assert torch.equal(fill_holes(masks, 100), masks)
    empty = torch.zeros(1, 3, 3)
    assert torch.equal(fill_holes(empty, 100), empty)


def test_a_hole_closed_by_corners_is_closed():
    masks = draw(".#.", "#.#", ".#.")
    assert fill_holes(masks, 1)[0, 1, 1] == 1


def test_soft_holes_are_filled_and_soft_edges_left():
    masks = draw("0123##3210", "012####210", "01#3#4#210", "012####210")
    filled = fill_holes(masks, 1)
    assert (filled[0, 2, 3], filled[0, 2, 5]) == (1, 1)
    filled[0, 2, 3], filled[0, 2, 5] = masks[0, 2, 3], masks[0, 2, 5]
    assert torch.equal(filled, masks)
