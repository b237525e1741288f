"""The benchmark's scores."""

import pytest
import torch


def test_true_masks_have_no_errors_and_little_flicker():
    pytest.importorskip("cv2")
    from benchmarks.video import score
    from tools.synthetic_pairs.clips import CLIPS, render_clip
    from tools.synthetic_pairs.sources import Sources

    clip = render_clip(CLIPS["hair"], Sources(), 3, 96)
    scores = score(torch.from_numpy(clip.alphas), clip)
    assert scores["MAE"] == scores["MAE at edges"] == scores["flicker of errors"] == 0
    assert 0 < scores["flicker"] < 20
    assert scores["Sm"] > 0.9


def test_columns_compare_flicker_with_the_first_line():
    pytest.importorskip("cv2")
    from benchmarks.video import columns

    first = {"flicker": 4.0, "flicker of errors": 5.0, "MAE": 20.0, "MAE at edges": 100.0, "Sm": 0.9}
    assert columns(first, first) == "4.00 | 5.00 | 20.00 | 100.0 | 0.9000"
    assert columns({**first, "flicker": 1.0}, first).startswith("1.00 (-75 %) | 5.00")
