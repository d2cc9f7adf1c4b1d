"""Imports point downwards only, and what inference doesn't need it doesn't import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {"audiossm": ".", "audiossm_kernels": "kernels", "audiossm_apps": "apps"}

# a module may import modules of its own height or lower
HEIGHTS = {
    "audiossm_kernels": 0,
    "audiossm": 1,
    "audiossm.errors": 1,
    "audiossm.audio": 1,
    "audiossm.config": 1,
    "audiossm.text": 1,
    "audiossm.manifest": 1,
    "audiossm.marks": 1,
    "audiossm.numbers": 1,
    "audiossm.hotwords": 1,
    "audiossm.cues": 1,
    "audiossm.subtitles": 1,
    "audiossm.suffixes": 1,
    "audiossm.textgrid": 1,
    "audiossm.lexicon": 1,
    "audiossm.units": 1,
    "audiossm.aloud": 1,
    "audiossm.spoken": 1,
    "audiossm.pictures": 1,
    "audiossm.processes": 1,
    "audiossm.whole": 1,
    "audiossm.protocol": 1,
    "audiossm.checkpoint": 1,
    "audiossm.rounding": 1,
    "audiossm.compiled": 1,
    "audiossm.nn": 2,
    "audiossm.loops": 3,
    "audiossm.graphs": 3,
    "audiossm.codec": 3,
    "audiossm.models": 4,
    "audiossm.decoding": 5,
    "audiossm.pronouncer": 5,
    "audiossm.script": 5,
    "audiossm.streaming": 6,
    "audiossm.evaluate": 7,
    "audiossm.prepare": 7,
    "audiossm.train": 7,
    "audiossm_apps": 8,
}

TRAINING = {"torchaudio", "triton", "tensorboard", "matplotlib"}
FORBIDDEN = {
    "audiossm/protocol": {"torch", "socket", "asyncio", "websockets", "starlette"},
    "audiossm/cues.py": {"torch", "numpy"},
    "audiossm/subtitles.py": {"torch", "numpy"},
    "audiossm/textgrid.py": {"torch", "numpy"},
    "audiossm/lexicon.py": {"torch", "numpy"},
    "audiossm/units.py": {"torch", "numpy"},
    "audiossm/aloud.py": {"torch", "numpy"},
    "audiossm/spoken.py": {"torch", "numpy"},
    "audiossm/pronouncer.py": {"torch", "numpy"},
    "audiossm/hotwords.py": {"torch", "numpy"},
    "audiossm/marks.py": {"torch", "numpy"},
    "audiossm/numbers.py": {"torch", "numpy"},
    "audiossm/manifest.py": {"torch", "soundfile"},
    "audiossm": {"argparse", "socket", "sounddevice", "rich", "starlette", "websockets", "uvicorn"},
    "kernels": {"audiossm", "audiossm_apps"},
}

# modules, and names of modules, that Windows or macOS doesn't have
ONE_SYSTEM = {"crypt", "curses", "fcntl", "grp", "msvcrt", "posix", "pty", "pwd", "readline"}
ONE_SYSTEM |= {"resource", "spwd", "syslog", "termios", "tty", "uvloop", "winreg"}
EVERYWHERE = {"SIGABRT", "SIGFPE", "SIGILL", "SIGINT", "SIGSEGV", "SIGTERM", "SIG_DFL", "SIG_IGN"}
OF_LINUX = {"fork", "forkpty", "getgid", "getloadavg", "getpgid", "getuid", "geteuid", "mkfifo"}
OF_LINUX |= {"nice", "setsid", "killpg", "chown", "fchmod", "memfd_create", "uname", "wait3"}

ONE_HOME = [
    "numba",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "soundfile",
    "jiwer",
    "av",
    "matplotlib",
    "sounddevice",
    "uvicorn",
    "websockets",
    "starlette",
    "redis",
    "transformers",
    "ray",
]


def list_modules() -> dict[str, Path]:
    modules = {}
    for package, source in SOURCES.items():
        for path in sorted((ROOT / source / package).rglob("*.py")):
            parts = path.relative_to(ROOT / source).with_suffix("").parts
            modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


def list_imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            # "from audiossm import errors" imports a module, "from x import name" may not
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def height(module: str) -> int | None:
    parts = module.split(".")
    if parts[0] not in SOURCES:
        return None
    return HEIGHTS.get(".".join(parts[:2]), HEIGHTS[parts[0]])


MODULES = list_modules()


def test_every_module_of_the_library_has_a_height():
    tops = {".".join(name.split(".")[:2]) for name in MODULES if name.split(".")[0] == "audiossm"}
    assert tops - HEIGHTS.keys() == set(), "give these a height in tests/test_imports.py"


# the package's own face hands names on, and only when somebody asks for one
@pytest.mark.parametrize("name", sorted(MODULES.keys() - {"audiossm"}))
def test_imports_point_downwards(name):
    own = height(name)
    for imported in list_imports(MODULES[name]):
        other = height(imported)
        assert other is None or own is None or other <= own, f"{name} imports {imported}"


@pytest.mark.parametrize("place", FORBIDDEN)
def test_a_place_imports_nothing_that_is_not_its_business(place):
    for path in MODULES.values():
        if path.is_relative_to(ROOT / place):
            tops = {name.split(".")[0] for name in list_imports(path)}
            assert not tops & FORBIDDEN[place], path


@pytest.mark.parametrize("package", ONE_HOME)
def test_an_optional_package_has_one_home(package):
    # the name alone: test helpers and recipes aren't looked at
    homes = [
        name
        for name, path in MODULES.items()
        if package in {imported.split(".")[0] for imported in list_imports(path)}
    ]
    assert len({name.rpartition(".")[0] for name in homes}) == 1, homes


def list_early_names(path: Path) -> set[str]:
    """Return ``module.name`` and imported modules of all that runs when a module is imported."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for early in [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]:
                if early is not None:
                    visit(early)
            return
        if isinstance(node, ast.Lambda):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def is_of_one_system(name: str) -> bool:
    module, _, attribute = name.partition(".")
    if module == "signal":
        return attribute.startswith("SIG") and attribute not in EVERYWHERE
    if module == "os":
        return attribute in OF_LINUX or attribute.startswith(("sched_", "O_DIRECT", "SCHED_"))
    return module in ONE_SYSTEM


def test_nothing_of_one_system_is_needed_to_import_a_module_or_to_start_a_recipe():
    recipes = sorted((ROOT / "recipes").rglob("*.py"))
    assert recipes
    found = {
        str(path.relative_to(ROOT)): {n for n in list_early_names(path) if is_of_one_system(n)}
        for path in [*MODULES.values(), *recipes]
    }
    assert {name: names for name, names in found.items() if names} == {}


def test_a_module_of_one_system_would_be_found(tmp_path):
    lines = ["import fcntl", "from os import sched_getaffinity", "import signal, os"]
    lines += ["ENDS = (signal.SIGKILL, signal.SIGTERM)", "def f(x=os.getuid()): import pwd"]
    (tmp_path / "m.py").write_text("\n".join(lines))
    found = {name for name in list_early_names(tmp_path / "m.py") if is_of_one_system(name)}
    assert found == {"fcntl", "os.sched_getaffinity", "signal.SIGKILL", "os.getuid"}


def test_the_face_of_the_package_imports_nothing_by_itself():
    code = "import audiossm, sys; assert 'torch' not in sys.modules; audiossm.Transcriber"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_protocol_needs_no_torch():
    code = "import audiossm.protocol, sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_everything_but_training_imports_without_training_packages_and_on_other_systems():
    names = [
        name
        for name in MODULES
        if not name.startswith("audiossm.train")
        and not name.rpartition(".")[2].startswith("triton_")
    ]
    code = (
        "import builtins, importlib, sys\n"
        "find = builtins.__import__\n"
        "def find_elsewhere(name, globals=None, *rest):\n"
        "    asks = str((globals or {}).get('__name__'))\n"
        f"    if asks.startswith('audiossm') and name.split('.')[0] in {sorted(ONE_SYSTEM)}:\n"
        "        raise ImportError(f'{asks} imports {name}, which not every system has')\n"
        "    return find(name, globals, *rest)\n"
        "builtins.__import__ = find_elsewhere\n"
        f"sys.modules.update(dict.fromkeys({sorted(TRAINING | {'jiwer', 'librosa'})}))\n"
        f"for name in {names}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_two_modules_of_the_service_import_each_other():
    """For types alone, too."""
    left = {
        name: {other for other in list_imports(path) if other in MODULES} - {name}
        for name, path in MODULES.items()
        if name.startswith("audiossm_apps.live.")
    }
    left = {name: others & left.keys() for name, others in left.items()}
    while free := {name for name, others in left.items() if not others}:
        left = {name: others - free for name, others in left.items() if name not in free}
    assert left == {}, "these are in a circle, or import one"
