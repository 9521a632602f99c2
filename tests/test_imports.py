"""Imports run one way: launch -> grid -> kd, and in each from room to room; analysis shares grid/contract alone; only
grid/cluster imports Ray."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STANDARD = set(sys.stdlib_module_names)

# What each part may import beside the standard library and itself.
ALLOWED = {
    "kd": {
        *("numpy", "safetensors", "sklearn", "timm", "torch", "torchvision", "PIL", "pyarrow", "huggingface_hub"),
        *("onnx", "onnxruntime", "scipy"),
    },
    "analysis": {"fsspec", "matplotlib", "numpy", "polars", "safetensors", "scipy", "wandb", "wandb_workspaces"},
    "grid": {
        *("aiobotocore", "kd", "fsspec", "huggingface_hub", "numpy", "polars", "pydantic", "rich", "safetensors"),
        *("torch", "yaml"),
    },
    "grid/cluster": {"grid", "grpc", "kd", "ray", "torch"},
    "grid/contract": set(),
}

# What both sides must know alike: the standard library, and nothing of either.
CONTRACT = "grid.contract"

# Publishing a student builds its model. Nothing else in analysis may need the code that ran the grid, but the contract.
EXPORT = (ROOT / "analysis" / "cli.py", "grid.publish.export")


def modules_of(path: Path) -> set[str]:
    """Every module a file imports, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            names.add(str(node.module))
    return names


def is_contract(module: str) -> bool:
    return module == CONTRACT or module.startswith(f"{CONTRACT}.")


# torch's collectives that unpickle what another process sends, and its readers of pickles.
FOR_OBJECTS = {
    *("all_gather_object", "gather_object", "broadcast_object_list", "scatter_object_list"),
    *("send_object_list", "recv_object_list"),
}
LOADERS = ("torch.load", "timm.models.load_state_dict")


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports, but of the contract, which everybody may."""
    return {module.split(".")[0] for module in modules_of(path) if not is_contract(module)}


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    room = "/".join(relative.parts[:2])
    return room if room in ALLOWED else relative.parts[0]


FILES = [path for part in ("kd", "grid", "analysis") for path in sorted((ROOT / part).rglob("*.py"))]


def test_there_are_files_to_check() -> None:
    assert {part_of(path) for path in FILES} == set(ALLOWED)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    part = part_of(path)
    own = set() if part == "grid/contract" else {part.split("/")[0]}
    wrong = imported(path) - STANDARD - ALLOWED[part] - own
    if path == EXPORT[0]:
        wrong -= {"grid"}
    assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


# The rooms of each part, lowest first: folders, and modules that stand beside them. What is in none of them is on top.
ROOMS = {
    "kd": (
        *("limits", "draws", "checkpoint", "machine", "data", "data/reading", "data/views", "models", "methods"),
        *("recipe", "precision", "evaluate", "logits", "objective", "training", "testing"),
    ),
    "grid": (
        *("contract/files", "contract", "contract/program", "errors", "identity", "private", "interruption"),
        *("files", "spec", "plan", "store", "read", "work", "work/memory", "watch", "publish", "cluster", "launch"),
    ),
    "analysis": (
        *("errors", "document", "shown"),
        *("read", "stats", "measures", "measures/images", "write", "plots", "tables"),
        *("report", "notebook", "tracking", "publish", "arguments", "cli"),
    ),
}


def height(module: str) -> int:
    """The place of its room among those of its part; of rooms within one another it is in the inner one."""
    part, *names = module.split(".")
    rooms = [room for room in ROOMS[part] if names[: room.count("/") + 1] == room.split("/")]
    return ROOMS[part].index(max(rooms, key=len)) if rooms else len(ROOMS[part])


def is_module(name: str) -> bool:
    place = ROOT / name.replace(".", "/")
    return place.is_dir() or place.with_suffix(".py").is_file()


def upward(module: str, code: str) -> list[str]:
    """The imports of a module from rooms above its own, those in functions and for types alone included."""
    found: list[str] = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if is_module(name) else str(node.module) for name in whole]
    own = [name for name in found if name.split(".")[0] == module.split(".")[0]]
    return [f"{module} -> {name}" for name in dict.fromkeys(own) if height(name) > height(module)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_runs_to_a_room_above(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    assert upward(module, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("code", "arrows"),
    [
        ("from grid.store.store import Store", ["grid.plan.stage -> grid.store.store"]),
        ("from grid.store import lease", ["grid.plan.stage -> grid.store.lease"]),
        ("def f():\n    import grid.launch.run", ["grid.plan.stage -> grid.launch.run"]),
        ("if TYPE_CHECKING:\n    from grid import read", ["grid.plan.stage -> grid.read"]),
        ("from grid.contract.program import version; from grid import errors; import kd.training.train, rich", []),
        ("from grid.plan.cell import CellStage", []),
    ],
)
def test_an_import_from_above_is_seen(code: str, arrows: list[str]) -> None:
    assert upward("grid.plan.stage", code) == arrows


def test_every_room_is_there() -> None:
    assert all(is_module(f"{part}.{room.replace('/', '.')}") for part, rooms in ROOMS.items() for room in rooms)


MOST = 12  # modules of a folder
ALIKE = {"kd/methods", "kd/models", "analysis/plots"}  # as many as there are


def test_no_folder_has_more_than_a_dozen_modules() -> None:
    counts = Counter(str(path.parent.relative_to(ROOT)) for path in FILES if path.name != "__init__.py")
    assert {folder: count for folder, count in counts.items() if count > MOST and folder not in ALIKE} == {}


@pytest.mark.parametrize("part", ROOMS)
def test_tests_stand_in_the_rooms_that_they_are_of(part: str) -> None:
    below = ROOT / "tests" / part
    folders = {str(path.parent.relative_to(below)) for path in below.rglob("test_*.py")}
    assert folders - {"."} <= set(ROOMS[part])


def test_analysis_reaches_the_grid_for_an_export_alone_and_only_then() -> None:
    path, module = EXPORT
    tree = ast.parse(path.read_text(encoding="utf-8"))
    from_grid = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and str(node.module).startswith("grid")
        and not is_contract(str(node.module))
    ]
    assert {node.module for node in from_grid} == {module}
    assert not any(node in tree.body for node in from_grid)
    plain = [alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names]
    assert not any(name.startswith("grid") for name in plain)


def test_nothing_is_unpickled_but_cifars_own_files() -> None:
    """Those by an unpickler that allows five names. torch's collectives for objects unpickle what they are sent."""
    assert [path for path in FILES if "pickle" in imported(path)] == [ROOT / "kd" / "data" / "reading" / "cifar.py"]
    for path in FILES:
        nodes = [*ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
        named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert not named & FOR_OBJECTS, path
        for call in (node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in LOADERS):
            safe = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert safe.get("weights_only") == "True", f"{path}: {ast.unparse(call)}"


# Of Ray, what others than INTERNALS may import: what its documentation has.
INTERNALS = ROOT / "grid" / "cluster" / "ray_internals"
PUBLIC_RAY = {
    *("ray", "ray.exceptions", "ray.util.placement_group", "ray.util.scheduling_strategies"),
    *("ray.train", "ray.train.backend", "ray.train.torch"),
    *("ray.tune", "ray.tune.experiment", "ray.tune.schedulers", "ray.tune.search"),
}
BY_NAME = {"getattr", "setattr", "hasattr", "delattr"}


def is_private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.endswith("__")


def is_of_ray(module: str) -> bool:
    return module.split(".")[0] == "ray"


def private_to_ray(code: str) -> list[str]:
    """What code of grid/cluster uses of Ray's that is no public interface, or replaces. A private name that it does not
    define itself counts as Ray's, whatever it is asked of: Ray's objects come as arguments too."""
    nodes = [*ast.walk(ast.parse(code))]
    own, from_ray, found = set[str](), {"ray"}, list[str]()
    for node in nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                own.add(name)
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.Import(names=aliases):
                modules = [alias.name for alias in aliases if is_of_ray(alias.name)]
                from_ray |= {alias.asname or "ray" for alias in aliases if alias.name in modules}
                found += [module for module in modules if module not in PUBLIC_RAY]
            case ast.ImportFrom(module=str(module), names=aliases) if is_of_ray(module):
                from_ray |= {alias.asname or alias.name for alias in aliases}
                whole = {alias.name: f"{module}.{alias.name}" for alias in aliases}
                found += [one for name, one in whole.items() if module not in PUBLIC_RAY or is_private(name)]
    for node in nodes:
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store() | ast.Del()) if ast.unparse(node).split(".")[0] in from_ray:
                found.append(ast.unparse(node))
            case ast.Attribute(value=ast.Name(id=library)) if library in STANDARD:
                pass  # os._exit
            case ast.Attribute(attr=name) if is_private(name) and name not in own:
                found.append(ast.unparse(node))
            case ast.keyword(arg=name) if is_private(name) and name not in own:
                found.append(f"{name}=")
            case ast.Call(func=ast.Name(id="setattr"), args=[owner, *_]) if ast.unparse(owner) in from_ray:
                found.append(ast.unparse(node))
            case ast.Call(func=ast.Name(id=function), args=[_, ast.Constant(value=name), *_]) if function in BY_NAME:
                found += [ast.unparse(node)] if is_private(name) else []
    return found


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import ray; ray._private.worker._global_node", ["ray._private.worker._global_node", "ray._private"]),
        ("import ray._private.state", ["ray._private.state"]),
        ("from ray.core.generated.gcs_pb2 import JobTableData", ["ray.core.generated.gcs_pb2.JobTableData"]),
        ("from ray.train.v2._internal.util import date_str", ["ray.train.v2._internal.util.date_str"]),
        ("from ray import _raylet", ["ray._raylet"]),
        ("def f(controller): return controller._trials", ["controller._trials"]),
        ("class A(B):\n    def f(self): return self._trials", ["self._trials"]),
        ("def f(controller): controller._trials = []", ["controller._trials"]),
        ("ray.init(_temp_dir='/tmp')", ["_temp_dir="]),
        ("from ray import tune; tune.Tuner = None", ["tune.Tuner"]),
        ("import ray; setattr(ray, 'get', None)", ["setattr(ray, 'get', None)"]),
        ("getattr(trial, '_state')", ["getattr(trial, '_state')"]),
        ("import os, ray; ray.init(); os._exit(1)", []),
        ("class A:\n    def __init__(self, other): self._a = other._a", []),
    ],
)
def test_what_ray_keeps_to_itself_is_seen(code: str, what: list[str]) -> None:
    assert private_to_ray(code) == what


@pytest.mark.parametrize(
    "path", [path for path in FILES if part_of(path) == "grid/cluster"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_one_package_alone_uses_what_ray_keeps_to_itself(path: Path) -> None:
    found = private_to_ray(path.read_text(encoding="utf-8"))
    assert not found or path.parent == INTERNALS, f"{path.relative_to(ROOT)}: {found}"


def test_the_command_imports_no_ray() -> None:
    assert "ray" not in imported(ROOT / "launch.py")


def loaded_by(code: str) -> set[str]:
    """Which of the heavy packages a fresh interpreter has loaded after running `code`."""
    heavy = ("torch", "timm", "huggingface_hub", "ray", "polars", "wandb", "sklearn", "rich", "matplotlib")
    script = f"import sys\n{code}\nprint(*[name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()) if done.stdout.strip() else set()


def test_planning_needs_neither_torch_nor_ray() -> None:
    code = "from grid.read.grid_file import load_grid; from grid.plan import make_plan; make_plan(load_grid('digits'))"
    assert loaded_by(code) == set()


def test_help_needs_nothing_heavy() -> None:
    assert loaded_by("import launch; launch.parser().format_help()") == set()
    assert loaded_by("import analysis.cli; analysis.cli.parser().format_help()") == set()


def test_only_plots_load_matplotlib_and_never_its_global_state() -> None:
    tables = "import analysis.tables.compare, analysis.tables.grid_tables, analysis.read.curves"
    tables += ", analysis.tracking.export"
    assert "matplotlib" not in loaded_by(tables)
    assert loaded_by("import analysis.plots; assert 'matplotlib.pyplot' not in sys.modules") >= {"matplotlib"}
