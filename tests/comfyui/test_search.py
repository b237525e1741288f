"""ComfyUI's own search, in its page, finds our nodes by what people type. Needs chromium, chromedriver and selenium."""

import pytest

from tests.comfyui.browser import page_or_skip

pytestmark = pytest.mark.comfyui

SEARCH = """
const stores = document.querySelector('#vue-app').__vue_app__.config.globalProperties.$pinia._s;
return stores.get('nodeDef').nodeSearchService.searchNode(arguments[0], [], {limit: 64}).map(def => def.name);"""
WHOLE = "RemoveBackground"  # Background Removal, the one node
WORDS = {
    # The task, as people call it.
    "background removal": WHOLE, "remove background": WHOLE, "remove bg": WHOLE, "rembg": WHOLE, "rmbg": WHOLE,
    "birefnet": WHOLE, "cutout": WHOLE, "cut out": WHOLE, "isolate": WHOLE, "extract": WHOLE, "png": WHOLE,
    "transparent": WHOLE, "transparency": WHOLE, "sticker": WHOLE, "product photo": WHOLE, "matting": WHOLE,
    "segmentation": "Segment", "image segmentation": "Segment", "silhouette": "Segment", "person": "Segment",
    "portrait": "Segment", "hair": "Segment", "foreground": "Segment", "salient object": "Segment",
    "alpha matte": "Segment", "subject": "Segment",
    "alpha": "ApplyAlpha", "rgba": "ApplyAlpha", "composite": "ApplyAlpha", "replace background": "ApplyAlpha",
    "halo": "Despill", "green screen": "Despill", "chroma key": "Despill", "spill": "Despill", "fringe": "Despill",
    "feather": "RefineMask", "fill holes": "RefineMask", "refine mask": "RefineMask", "trimap": "Trimap",
    "inpaint crop": "CropAroundSubject", "uncrop": "StitchBack", "stitch": "StitchBack", "iou": "CompareMasks",
    "ground truth": "CompareMasks", "rotoscope": "SegmentVideo", "video background": "SegmentVideo",
    "bounding box": "BoxSubject", "select object": "PointAtSubject", "matting model": "LoadModel",
    # In the other languages.
    "抠图": WHOLE, "去背景": WHOLE, "分割": "Segment", "绿幕": "Despill", "换背景": "ApplyAlpha",
    "切り抜き": WHOLE, "背景除去": WHOLE, "シルエット": "Segment", "クロマキー": "Despill", "合成": "ApplyAlpha",
    "누끼": WHOLE, "배경 제거": WHOLE, "실루엣": "Segment", "크로마키": "Despill", "임계값": "RefineMask",
    "freistellen": WHOLE, "Hintergrund entfernen": WHOLE, "Segmentierung": "Segment", "Farbsaum": "Despill",
    "détourer": WHOLE, "supprimer l'arrière-plan": WHOLE, "masque": "Segment", "fond vert": "Despill",
    "quitar fondo": WHOLE, "recortar": WHOLE, "silueta": "Segment", "croma": "Despill", "cambiar fondo": "ApplyAlpha",
    "удалить фон": WHOLE, "вырезать": WHOLE, "сегментация": "Segment", "хромакей": "Despill", "рамка": "BoxSubject",
}  # fmt: skip
FIRST = ("background removal", "birefnet")


@pytest.fixture(scope="module")
def search(comfyui, tmp_path_factory):
    with page_or_skip(comfyui.url, tmp_path_factory.mktemp("chromium")) as page:
        yield lambda text: page.execute_script(SEARCH, text)


def test_each_word_finds_its_node_among_the_first_three(search):
    missed = {word: found[:3] for word, node in WORDS.items() if f"BiRefNet{node}" not in (found := search(word))[:3]}
    assert not missed


@pytest.mark.parametrize("word", FIRST)
def test_the_one_node_comes_first(search, word):
    assert search(word)[0] == f"BiRefNet{WHOLE}"


@pytest.mark.parametrize("word", ["load image", "ksampler", "upscale", "image", "lora", "model"])
def test_our_nodes_do_not_get_in_the_way(search, word):
    assert not [name for name in search(word)[:3] if name.startswith("BiRefNet")]
