"""The pack as ComfyUI imports it, over small stand-ins for the parts of ComfyUI it uses.

The stand-ins know names, types and defaults and nothing else; tests/comfyui drives the real one.
"""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


class Input:
    def __init__(self, id, *, tooltip=None, optional=False, default=None, advanced=None, extra_dict=None, **options):
        self.id, self.tooltip, self.optional, self.default, self.options = id, tooltip, optional, default, options
        self.min, self.max = options.get("min"), options.get("max")

    def __repr__(self):
        return f"{self.type} {self.id}"


class ComboInput(Input):
    """As in ComfyUI 0.3.64."""

    def __init__(self, id, options=None, tooltip=None, optional=False, default=None, advanced=None):
        super().__init__(id, tooltip=tooltip, optional=optional, default=default, options=options)


class IntInput(Input):
    def __init__(
        self, id, tooltip=None, optional=False, default=None, advanced=None, min=None, max=None, step=None,
        socketless=None, extra_dict=None,
    ):  # fmt: skip
        super().__init__(id, tooltip=tooltip, optional=optional, default=default, min=min, max=max, step=step)


class MultiTypeInput(Input):
    """The same as the input it is made of, which in ComfyUI also takes links of other types."""

    def __init__(self, id, types):
        self.input_override = id
        super().__init__(id.id, tooltip=id.tooltip, optional=id.optional, default=id.default, **id.options)
        self.type = ",".join([id.type, *(kind.Input.type for kind in types)])


class Output:
    def __init__(self, id=None, display_name=None, tooltip=None):
        self.id, self.display_name, self.tooltip = id, display_name, tooltip


def comfy_type(name: str, base: type = Input) -> type:
    made = {part: type(part, (cls,), {"type": name}) for part, cls in (("Input", base), ("Output", Output))}
    return type(name, (), made)


@dataclasses.dataclass
class Schema:
    node_id: str
    display_name: str
    category: str
    inputs: list
    outputs: list
    description: str = ""
    search_aliases: list = dataclasses.field(default_factory=list)
    essentials_category: str | None = None
    is_output_node: bool = False
    hidden: list = dataclasses.field(default_factory=list)
    enable_expand: bool = False


class NodeOutput:
    def __init__(self, *args, ui=None, expand=None):
        self.result, self.ui, self.expand = args, ui, expand


class Video:
    """As in ComfyUI 0.25, but for a clip that is a file and has a size the test names."""

    def __init__(self, file, size=(48, 32), start_time=0.0, duration=0.0):
        self.file, self.size, self.window = file, size, (start_time, duration)

    def get_stream_source(self):
        return self.file

    def get_dimensions(self):
        return self.size

    def get_active_trim_window(self):
        return self.window


class VideoFromFile(Video):
    pass


class VideoFromComponents(Video):
    """Images B, H, W, C and sound, in memory."""

    def __init__(self, images, frame_rate, audio=None):
        self.components = SimpleNamespace(images=images, frame_rate=frame_rate, audio=audio)

    def get_components(self):
        return self.components


class GraphBuilder:
    def __init__(self):
        self.nodes = {}

    def node(self, class_type, **inputs):
        name = str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": class_type, "inputs": inputs}
        return SimpleNamespace(out=lambda index: [name, index])

    def finalize(self):
        return self.nodes


class Interrupted(BaseException):
    """Stands for InterruptProcessingException."""


class Folders:
    """Stands for folder_paths."""

    def __init__(self, models: Path) -> None:
        self.models_dir = str(models)
        self.folder_names_and_paths = {}

    def add_model_folder_path(self, name, path):
        self.folder_names_and_paths.setdefault(name, ([], set()))[0].append(path)

    def get_folder_paths(self, name):
        return self.folder_names_and_paths[name][0]

    def get_annotated_filepath(self, name):
        return str(Path(self.get_input_directory(), name))

    def get_input_directory(self):
        return str(Path(self.models_dir).parent / "input")

    get_output_directory = get_temp_directory = get_input_directory

    def get_save_image_path(self, prefix, folder, width=0, height=0):
        path = Path(os.path.abspath(os.path.join(folder, prefix)))
        if not path.is_relative_to(folder):
            raise Exception("**** ERROR: Saving image outside the output folder is not allowed.")
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers = [int(file.name[len(path.name) + 1 :].split("_")[0]) for file in path.parent.glob(f"{path.name}_*")]
        return str(path.parent), path.name, max(numbers, default=0) + 1, Path(prefix).parent.as_posix(), prefix

    def get_filename_list(self, name):
        folders, endings = self.folder_names_and_paths[name]
        files = [f.relative_to(p).as_posix() for p in map(Path, folders) for f in p.rglob("*") if f.suffix in endings]
        return sorted(files)

    def get_full_path(self, name, file):
        paths = [Path(p, file) for p in self.get_folder_paths(name)]
        return next((str(path) for path in paths if path.is_file()), None)


def install_comfyui(modules: dict, models: Path) -> SimpleNamespace:
    """Puts the stand-ins into a table of modules; what tests steer is returned."""
    steered = {"cancelled": False, "progress": [], "previews": [], "loaded": []}
    state = SimpleNamespace(**steered, folders=Folders(models), Interrupted=Interrupted)

    def module(name, **names):
        made = modules[name] = ModuleType(name)
        made.__dict__.update(names)
        return made

    def throw_if_cancelled():
        if state.cancelled:
            state.cancelled = False
            raise Interrupted

    management = module(
        "comfy.model_management",
        get_torch_device=lambda: torch.device("cpu"),
        unet_offload_device=lambda: torch.device("cpu"),
        intermediate_device=lambda: torch.device("cpu"),
        get_free_memory=lambda device: 2**33,
        should_use_fp16=lambda device: False,
        load_models_gpu=lambda patchers, **options: state.loaded.append(options),
        throw_exception_if_processing_interrupted=throw_if_cancelled,
    )

    class ProgressBar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, done, total, preview=None):
            state.progress.append((done, total))
            state.previews.append(preview)

    class ModelPatcher:
        def __init__(self, model, load_device, offload_device):
            self.model = model

        def partially_unload(self, device_to, memory_to_free=0):
            return memory_to_free

        def detach(self, unpatch_all=True):
            pass

    types = {n: comfy_type(n.upper()) for n in ("Image", "Mask", "Float", "Boolean", "String", "Color", "Video")}
    types["BoundingBox"] = comfy_type("BOUNDING_BOX")
    io = SimpleNamespace(
        **types, Int=comfy_type("INT", IntInput), Combo=comfy_type("COMBO", ComboInput), Custom=comfy_type,
        MultiType=SimpleNamespace(Input=MultiTypeInput), Schema=Schema,
        ComfyNode=object, NodeOutput=NodeOutput, Hidden=SimpleNamespace(unique_id="UNIQUE_ID"),
        FolderType=enum.Enum("FolderType", ["output", "temp"]),
    )  # fmt: skip
    ui = SimpleNamespace(
        PreviewImage=lambda images, cls: SimpleNamespace(images=images, as_dict=lambda: {"images": images}),
        PreviewVideo=lambda values: SimpleNamespace(values=values),
        SavedResult=lambda filename, subfolder, type: (filename, subfolder, type.name),
        PreviewText=lambda text: SimpleNamespace(as_dict=lambda: {"text": (text,)}),
    )
    utils = module("comfy.utils", ProgressBar=ProgressBar)
    patcher = module("comfy.model_patcher", ModelPatcher=ModelPatcher)
    module("comfy", model_management=management, utils=utils, model_patcher=patcher)
    module("comfy_api")
    made = SimpleNamespace(VideoFromFile=VideoFromFile, VideoFromComponents=VideoFromComponents)
    video = {"Input": SimpleNamespace(Video=Video), "InputImpl": made}
    module("comfy_api.latest", io=io, ui=ui, ComfyExtension=object, **video)
    module("comfy_execution")
    module("comfy_execution.graph_utils", GraphBuilder=GraphBuilder)
    folders = module("folder_paths")
    for name in (n for n in dir(state.folders) if not n.startswith("_")):
        setattr(folders, name, getattr(state.folders, name))
    return state


def import_pack(name: str) -> ModuleType:
    """Imports the repository under a name of its own, as ComfyUI does."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py")
    pack = importlib.util.module_from_spec(spec)
    sys.modules[name] = pack
    spec.loader.exec_module(pack)
    return pack


@pytest.fixture(scope="module", autouse=True)
def inference_mode():
    """ComfyUI runs nodes in it."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def comfy(tmp_path_factory):
    """The pack's nodes module in ``.nodes``, beside what tests steer."""
    before = dict(sys.modules)
    state = install_comfyui(sys.modules, tmp_path_factory.mktemp("models"))
    import_pack("pack_under_test")
    state.nodes = importlib.import_module("pack_under_test.nodes")
    state.compat = importlib.import_module("pack_under_test.nodes.comfy_compat")
    state.model_folders = importlib.import_module("pack_under_test.nodes.model_folders")
    state.core = importlib.import_module("pack_under_test.birefnet_core")
    state.model_folders.register_model_folders()
    yield state
    for name in set(sys.modules) - set(before):
        if name.startswith(("comfy", "folder_paths", "pack_under_test")):
            del sys.modules[name]


@pytest.fixture(scope="session")
def schemas(comfy):
    """Schemas by node id."""
    return {node.define_schema().node_id: node.define_schema() for node in comfy.nodes.NODES}


@pytest.fixture(scope="session")
def small_file(comfy, model_file):
    """A small network's file in models/birefnet; returns its name there."""
    shutil.copy(model_file, Path(comfy.folders.models_dir, "birefnet", "small.safetensors"))
    return "small.safetensors"
