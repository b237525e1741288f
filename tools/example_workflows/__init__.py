"""What the example workflows are: their nodes in columns, with the values and links that differ from the defaults.

`tools/refresh_examples.py` makes the files of `example_workflows/` from this list. ComfyUI's Templates dialog shows and
searches the file's name only, so the name is the title. Its search finds a word only near the beginning of a title:
"BiRefNet" within the first 33 characters.
"""

from .images import IMAGES
from .models import NEED_MODELS
from .parts import EXAMPLE, FOLDER, SECOND, THIRD, Example
from .videos import VIDEOS

EXAMPLES = (*IMAGES, *VIDEOS, *NEED_MODELS)

__all__ = ["EXAMPLE", "EXAMPLES", "FOLDER", "SECOND", "THIRD", "Example"]
