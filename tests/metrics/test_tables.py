import csv
import json
import math

import pytest

from birefnet_core.metrics import SetResult
from birefnet_core.metrics.tables import markdown_table, worst_images, write_csv, write_image_csv, write_json


def result(set_name, method="mine", **scores):
    scores = {"Sm": 0.9, "maxF": 0.8, "HCE": 1234.56, "mBA": math.nan} | scores
    images = {"a": {"Sm": 0.5, "HCE": 1.0}, "b": {"Sm": 0.2, "HCE": 9.0}, "c": {"Sm": math.nan, "HCE": 3.0}}
    return SetResult(method=method, set_name=set_name, scores=scores, images=images)


def rows(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_columns_are_in_the_order_of_table_4():
    table = rows(markdown_table([result("DIS-VD")]))
    assert table[0] == ["Set", "Method", *("maxF ↑", "wF ↑", "MAE ↓", "Sm ↑", "meanE ↑", "HCE ↓", "mBA ↑")]
    assert table[2] == ["DIS-VD", "mine", "0.800", "-", "-", "0.900", "-", "1235", "-"]


def test_the_paper_s_rows_stand_below_the_measured_ones():
    table = rows(markdown_table([result("DIS-VD"), result("DIS-VD", "other"), result("photos")]))
    assert [row[1] for row in table[2:5]] == ["mine", "other", "BiRefNet (Swin-L), paper"]
    assert table[4][2:8] == ["0.891", "0.854", "0.038", "0.898", "0.931", "989"]
    assert table[-1][:2] == ["photos", "mine"]
    assert len(rows(markdown_table([result("DIS-VD")], paper="none"))) == 3
    assert "UDUN" in markdown_table([result("DIS-VD")], paper="all")


def test_tasks_get_tables_of_their_own():
    first, second = markdown_table([result("CAMO"), result("HRSOD-TE")], paper="none").split("\n\n")
    assert rows(first)[0][2:] == ["Sm ↑", "maxF ↑", "HCE ↓", "mBA ↑"]
    assert rows(second)[0][2:4] == ["Sm ↑", "maxF ↑"]


def test_all_lines_of_a_table_are_equally_long():
    assert len({len(line) for line in markdown_table([result("DIS-VD")]).splitlines()}) == 1


def test_json_of_one_result_has_its_scores_on_top(tmp_path):
    write_json([result("photos")], tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text("utf-8"), parse_constant=pytest.fail)  # no NaN in it
    assert document["Sm"] == 0.9
    assert document["mBA"] is None
    assert document["results"][0]["images"]["b"]["HCE"] == 9
    write_json([result("a"), result("b")], tmp_path / "r.json")
    assert list(json.loads((tmp_path / "r.json").read_text("utf-8"))) == ["results"]


def test_csv_files_hold_all_digits(tmp_path):
    write_csv([result("photos", Sm=1 / 3)], tmp_path / "sets.csv")
    write_image_csv([result("photos")], tmp_path / "images.csv")
    with (tmp_path / "sets.csv").open() as file:
        (line,) = csv.DictReader(file)
    assert float(line["Sm"]) == 1 / 3
    assert (line["method"], line["set"], line["count"]) == ("mine", "photos", "3")
    with (tmp_path / "images.csv").open() as file:
        assert [line["image"] for line in csv.DictReader(file)] == ["a", "b", "c"]


def test_the_worst_images_come_first():
    assert worst_images(result("photos"), 5, "Sm") == [("b", 0.2), ("a", 0.5)]
    assert worst_images(result("photos"), 2, "HCE") == [("b", 9.0), ("c", 3.0)]
