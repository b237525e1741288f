import numpy as np
import pytest
from PIL import Image, ImageFont

from birefnet_core.error_colours import FALSE_NEGATIVE, FALSE_POSITIVE
from birefnet_core.metrics import Protocol, evaluate_set
from birefnet_core.metrics.contact_sheet import save_contact_sheet


def test_sheet_grows_with_rows_and_has_a_column_for_images(folders, tmp_path, save):
    result = evaluate_set(*folders, protocol=Protocol(keys=("MAE",)))
    images = {stem: save(tmp_path / "im" / f"{stem}.png", np.zeros((40, 50, 3), np.uint8)) for stem in "012"}
    sizes = []
    for count, shown in ((1, None), (3, None), (3, images)):
        save_contact_sheet(result, tmp_path / "s.png", count=count, key="MAE", images=shown)
        with Image.open(tmp_path / "s.png") as sheet:
            sizes.append(sheet.size)
    assert sizes[0][1] < sizes[1][1] == sizes[2][1]
    assert sizes[1][0] < sizes[2][0]


def test_sheet_shows_errors_in_the_common_colours(tmp_path, save):
    truth = np.zeros((64, 64), np.uint8)
    truth[:, :32] = 255
    save(tmp_path / "g" / "a.png", truth)
    save(tmp_path / "p" / "a.png", np.ascontiguousarray(truth.T))
    result = evaluate_set(tmp_path / "p", tmp_path / "g", protocol=Protocol(keys=("MAE",)))
    save_contact_sheet(result, tmp_path / "s.png", count=1, key="MAE")
    sheet = np.array(Image.open(tmp_path / "s.png"))
    errors = sheet[-8 - 256 : -8, -8 - 256 : -8]
    corners = [errors[row, column].tolist() for row in (20, 236) for column in (20, 236)]
    false_positive, false_negative = (np.rint(np.array(c) * 255).tolist() for c in (FALSE_POSITIVE, FALSE_NEGATIVE))
    assert corners == [[255, 255, 255], false_positive, false_negative, [0, 0, 0]]


@pytest.mark.skipif(not hasattr(ImageFont, "load_default_imagefont"), reason="Pillow has this font only")
def test_a_font_that_has_few_characters_is_enough(monkeypatch, tmp_path, save):
    monkeypatch.setattr(ImageFont, "load_default", lambda size=None: ImageFont.load_default_imagefont())
    for folder in "gp":
        save(tmp_path / folder / "猫 é.png", np.zeros((9, 9), np.uint8))
    result = evaluate_set(tmp_path / "p", tmp_path / "g", protocol=Protocol(keys=("MAE",)))
    save_contact_sheet(result, tmp_path / "s.png", count=1, key="MAE")
    assert (tmp_path / "s.png").is_file()
