"""Words that ComfyUI's search finds a node by, beside its name: what people call the task, in the pack's languages.

ComfyUI has one list for all languages. A word counts most at the beginning of an entry.
"""

from __future__ import annotations

_CUT_OUT = {
    "en": "cut out, cutout, isolate, extract, extract subject, knock out, png, transparent, transparent background, "
    "transparency, sticker, foreground",
    "zh": "抠图, 透明背景, 透明, 前景, 贴纸",
    "ja": "切り抜き, 切り抜く, 透過, 透明, 前景, ステッカー",
    "ko": "누끼, 누끼 따기, 투명, 투명 배경, 전경, 스티커",
    "de": "freistellen, Freisteller, ausschneiden, transparent, Vordergrund, Aufkleber",
    "fr": "détourer, détourage, découper, transparent, premier plan, autocollant",
    "es": "recortar, recorte, silueteado, transparente, primer plano, pegatina",
    "ru": "вырезать, обтравка, прозрачный, прозрачный фон, передний план, стикер",
}
_PEOPLE = {
    "en": "person, people, human, portrait, hair, animal, product",
    "zh": "人物, 人像, 头发, 商品",
    "ja": "人物, ポートレート, 髪, 商品",
    "ko": "인물, 사람, 머리카락, 제품",
    "de": "Person, Mensch, Porträt, Haare, Produkt",
    "fr": "personne, portrait, cheveux, produit",
    "es": "persona, retrato, pelo, producto",
    "ru": "человек, портрет, волосы, товар",
}
_MATTING = {
    "en": "matting, matte, rembg, rmbg",
    "zh": "抠像, 蒙版",
    "ja": "マッティング",
    "ko": "매팅",
    "de": "Matting",
    "fr": "matting",
    "es": "matting",
    "ru": "маттинг",
}
_BACKGROUND = {
    "en": "background removal, remove background, background remover, remove bg, delete background, erase background",
    "zh": "去背景, 去除背景, 移除背景, 背景移除",
    "ja": "背景除去, 背景削除, 背景を消す, 背景透過",
    "ko": "배경 제거, 배경 지우기, 배경 삭제",
    "de": "Hintergrund entfernen, Hintergrund löschen, Hintergrundentfernung",
    "fr": "supprimer l'arrière-plan, enlever le fond, suppression du fond, arrière-plan",
    "es": "quitar fondo, eliminar fondo, borrar fondo, fondo",
    "ru": "удалить фон, удаление фона, убрать фон, фон",
}
_WORDS: dict[str, tuple[dict[str, str], ...]] = {
    "BiRefNetRemoveBackground": (
        _BACKGROUND, _MATTING, _CUT_OUT, _PEOPLE, {"en": "segmentation, silhouette, product photo, one click"},
    ),
    "BiRefNetSegment": (
        {
            "en": "segmentation, segment, silhouette, subject, subject mask, background mask, object mask, image "
            "segmentation, alpha matte, foreground mask, mask from image, salient object, saliency, contour, "
            "dichotomous, extract mask, isolate, foreground",
            "zh": "分割, 图像分割, 剪影, 主体, 遮罩, 前景",
            "ja": "セグメンテーション, 領域分割, シルエット, 被写体, マスク作成, 前景",
            "ko": "세그멘테이션, 분할, 실루엣, 피사체, 마스크, 전경",
            "de": "Segmentierung, Segmentieren, Silhouette, Umriss, Motiv, Maske",
            "fr": "segmentation, segmenter, silhouette, contour, sujet, masque",
            "es": "segmentación, segmentar, silueta, contorno, sujeto, máscara",
            "ru": "сегментация, силуэт, контур, объект, маска",
        },
        _MATTING, _PEOPLE,
    ),
    "BiRefNetApplyAlpha": (
        _CUT_OUT,
        {
            "en": "alpha, alpha channel, RGBA, apply mask, composite, compositing, replace background, change "
            "background, new background, background color, foreground estimation, premultiplied, halo, color fringe, "
            "checkerboard",
            "zh": "合成, 换背景, 替换背景, 背景颜色, 透明通道",
            "ja": "合成, 背景を変える, 背景変更, 背景色, アルファ",
            "ko": "합성, 배경 바꾸기, 배경 교체, 배경색, 알파",
            "de": "Hintergrund ersetzen, neuer Hintergrund, zusammensetzen, Montage, Alphakanal, Farbsaum",
            "fr": "composer, compositing, remplacer l'arrière-plan, changer le fond, couche alpha, frange",
            "es": "componer, composición, reemplazar fondo, cambiar fondo, canal alfa, halo",
            "ru": "композит, совместить, заменить фон, сменить фон, альфа-канал, ореол",
        },
    ),
    "BiRefNetRefineMask": (
        {
            "en": "mask grow, mask feather, mask blur, mask threshold, mask cleanup, grow mask, feather, blur mask, "
            "shrink, erode, dilate, expand, threshold, fill holes, remove islands, smooth edge, guided filter, halo",
            "zh": "羽化, 扩展遮罩, 收缩, 填充孔洞, 阈值, 遮罩处理, 边缘平滑",
            "ja": "ぼかし, マスク拡張, マスク縮小, 穴埋め, しきい値, エッジ",
            "ko": "페더, 마스크 확장, 마스크 축소, 구멍 채우기, 임계값",
            "de": "Maske verfeinern, weiche Kante, Kante, wachsen, schrumpfen, Löcher füllen, Schwelle",
            "fr": "affiner le masque, adoucir, bord, agrandir, rétrécir, boucher les trous, seuil",
            "es": "refinar máscara, suavizar, borde, expandir, contraer, rellenar huecos, umbral",
            "ru": "уточнить маску, растушевка, край, расширить, сжать, заполнить отверстия, порог",
        },
    ),
    "BiRefNetLoadModel": (
        {
            "en": "background removal model, matting model, segmentation model, load model, rmbg, RMBG-2.0, lora, "
            "adapter, lucida, toonout, BiRefNet_HR, BiRefNet_lite",
            "zh": "加载模型, 抠图模型",
            "ja": "モデル読み込み, 背景除去モデル",
            "ko": "모델 불러오기, 배경 제거 모델",
            "de": "Modell laden",
            "fr": "charger le modèle",
            "es": "cargar modelo",
            "ru": "загрузить модель",
        },
    ),
    "BiRefNetCompareMasks": (
        {
            "en": "mask metrics, IoU, F-measure, MAE, evaluate mask, evaluation, mask difference, haze, ground "
            "truth",
            "zh": "评估, 指标, 比较遮罩, 真值",
            "ja": "評価, 指標, マスク比較, 正解",
            "ko": "평가, 지표, 마스크 비교, 정답",
            "de": "Masken vergleichen, bewerten, Maß, Referenz",
            "fr": "comparer les masques, évaluer, mesure, vérité terrain",
            "es": "comparar máscaras, evaluar, medida, referencia",
            "ru": "сравнить маски, оценка, метрика, эталон",
        },
    ),
    "BiRefNetTrimap": (
        {
            "en": "trimap, unknown area, edge band, mask border, vitmatte, matting",
            "zh": "三分图, 三元图, 边缘",
            "ja": "トライマップ, 境界",
            "ko": "트라이맵, 경계",
            "de": "Trimap, Randband",
            "fr": "trimap, bande de bord",
            "es": "trimapa, banda de borde",
            "ru": "тримап, полоса края",
        },
    ),
    "BiRefNetDespill": (
        {
            "en": "green screen, greenscreen, blue screen, chroma key, spill, spill suppression, green edges, halo, "
            "fringe, color fringe, defringe, decontaminate, edge color",
            "zh": "绿幕, 蓝幕, 绿边, 溢色, 抠像, 白边, 去边",
            "ja": "グリーンバック, グリーンスクリーン, クロマキー, 色かぶり, フリンジ",
            "ko": "그린 스크린, 크로마키, 초록 테두리, 색 번짐",
            "de": "Greenscreen, Bluescreen, grüner Rand, Farbsaum, Farbstich, Halo",
            "fr": "fond vert, écran vert, écran bleu, frange, halo, débord",
            "es": "pantalla verde, croma, borde verde, halo, derrame",
            "ru": "зелёный экран, зеленый экран, хромакей, ореол, кайма",
        },
    ),
    "BiRefNetCropAroundSubject": (
        {
            "en": "inpaint crop, crop, crop to mask, crop to subject, crop and stitch, mask crop, detailer",
            "zh": "裁剪, 局部重绘, 裁剪主体",
            "ja": "クロップ, 切り取り, インペイント",
            "ko": "자르기, 크롭, 인페인팅",
            "de": "zuschneiden, Ausschnitt, Inpainting",
            "fr": "rogner, recadrer, inpainting",
            "es": "recortar, encuadrar, inpainting",
            "ru": "обрезать, кадрировать, инпейнтинг",
        },
    ),
    "BiRefNetStitchBack": (
        {
            "en": "stitch, inpaint stitch, uncrop, paste back, crop and stitch, merge crop",
            "zh": "拼回, 贴回, 缝合",
            "ja": "貼り戻し, 戻す, 合成",
            "ko": "되붙이기, 합치기",
            "de": "einsetzen, zurücksetzen, einfügen",
            "fr": "recoller, remettre",
            "es": "pegar de vuelta, reinsertar",
            "ru": "вставить обратно, вклеить",
        },
    ),
    "BiRefNetPointAtSubject": (
        {
            "en": "click, point, select object, select subject, choose subject, dabs, click to select, "
            "point prompt, person",
            "zh": "点选, 选择对象, 选择主体, 涂抹",
            "ja": "クリック, 被写体を選択, 塗る",
            "ko": "클릭, 피사체 선택, 칠하기",
            "de": "Klick, Motiv wählen, auswählen, malen",
            "fr": "cliquer, choisir le sujet, sélectionner, peindre",
            "es": "clic, elegir sujeto, seleccionar, pintar",
            "ru": "клик, выбрать объект, указать, закрасить",
        },
    ),
    "BiRefNetBoxSubject": (
        {
            "en": "bounding box, bbox, box, draw box, select subject, select object, box prompt, rectangle",
            "zh": "边界框, 框选, 画框",
            "ja": "バウンディングボックス, 枠, 囲む",
            "ko": "바운딩 박스, 상자, 영역 선택",
            "de": "Rahmen, Kasten, Rechteck",
            "fr": "cadre, rectangle, encadrer",
            "es": "recuadro, rectángulo, caja",
            "ru": "рамка, прямоугольник, выделить",
        },
    ),
    "BiRefNetSegmentVideo": (
        {
            "en": "video background removal, video background, remove video background, video matting, rotoscope, "
            "rotoscoping, green screen video, ProRes, WebM alpha, transparent video, video mask",
            "zh": "视频抠图, 视频去背景, 透明视频",
            "ja": "動画, 動画背景除去, 動画切り抜き, ロトスコープ",
            "ko": "영상, 동영상 배경 제거, 비디오 배경 제거",
            "de": "Video freistellen, Video Hintergrund entfernen, Rotoskopie",
            "fr": "détourer une vidéo, vidéo sans fond, rotoscopie",
            "es": "vídeo sin fondo, quitar fondo de vídeo, rotoscopia",
            "ru": "видео без фона, удалить фон видео, ротоскопинг",
        },
    ),
}  # fmt: skip


def search_words(node_id: str) -> list[str]:
    """The words of a node, each once, English first."""
    lists = sorted(((lang, words) for part in _WORDS.get(node_id, ()) for lang, words in part.items()), key=_order)
    return list(dict.fromkeys(word for _, words in lists for word in words.split(", ")))


def _order(item: tuple[str, str]) -> bool:
    return item[0] != "en"
