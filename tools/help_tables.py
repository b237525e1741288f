"""Writes title and tables of the help pages in web/docs from the texts in locales; what stands between is kept.

python tools/help_tables.py
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEADINGS = {  # of the two tables, then of their columns
    "en": ("Inputs", "Outputs", "input", "what it does", "output", "what it is"),
    "de": ("Eingänge", "Ausgänge", "Eingang", "was er tut", "Ausgang", "was er ist"),
    "fr": ("Entrées", "Sorties", "entrée", "ce qu'elle fait", "sortie", "ce que c'est"),
    "es": ("Entradas", "Salidas", "entrada", "qué hace", "salida", "qué es"),
    "ru": ("Входы", "Выходы", "вход", "что делает", "выход", "что это"),
    "zh": ("输入", "输出", "输入", "作用", "输出", "内容"),
    "ja": ("入力", "出力", "入力", "働き", "出力", "内容"),
    "ko": ("입력", "출력", "입력", "하는 일", "출력", "내용"),
}


def page_of(node: str, language: str) -> Path:
    """Where ComfyUI's page looks for help: the language's own, else the English page."""
    folder = ROOT / "web" / "docs"
    return folder / f"{node}.md" if language == "en" else folder / node / f"{language}.md"


def with_tables(page: str, texts: dict, language: str) -> str:
    """A page with title and tables of a node's texts.

    Args:
        page: The page as it is.
        texts: The node's entry in nodeDefs.json.
        language: Of the page.
    """
    inputs, outputs, *columns = HEADINGS[language]
    prose = page.partition("\n## ")[0].split("\n", 1)[1].strip()
    names = {key: key if language == "en" else text["name"] for key, text in texts["inputs"].items()}
    rows = [f"| **{names[key]}** | {text['tooltip']} |" for key, text in texts["inputs"].items()]
    parts = [f"# {texts['display_name']}", prose, f"## {inputs}", _table(columns[:2], rows)]
    rows = [f"| **{text['name']}** | {text['tooltip']} |" for text in texts["outputs"].values()]
    return "\n\n".join([*parts, f"## {outputs}", _table(columns[2:], rows)]) + "\n"


def _table(columns: list[str], rows: list[str]) -> str:
    return "\n".join([f"| {columns[0]} | {columns[1]} |", "|---|---|", *rows])


def main() -> None:
    for language in HEADINGS:
        texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
        for node in texts:
            path = page_of(node, language)
            before = path.read_text(encoding="utf-8")
            path.write_text(with_tables(before, texts[node], language), encoding="utf-8")


if __name__ == "__main__":
    main()
