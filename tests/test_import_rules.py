"""The import rules of the house, read from the code itself."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import deepssim

PACKAGE = Path(deepssim.__file__).parent
CSRC = Path(__file__).parents[1] / "csrc"
HEAVY = ("torch", "onnxruntime", "pandas", "pyarrow", "click", "PIL", "jinja2", "rich")


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require":
            found |= {str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant)}
    return found


def importers(name: str) -> set[str]:
    return {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if any(module == name or module.startswith(name + ".") for module in imports(path))
    }


def test_importing_the_package_loads_nothing_heavy():
    code = f"import sys, deepssim; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_core_has_two_rooms_that_import_it():
    found = importers("deepssim._core")
    assert {"search.py", "image_ops/resize.py"} <= found
    assert {path for path in found if not path.startswith("image_ops/")} == {"search.py"}


def test_onnxruntime_has_one_importer():
    assert importers("onnxruntime") == {"embed.py"}


def test_nothing_outside_the_command_line_imports_it():
    assert {path for path in importers("deepssim.cli") if not path.startswith("cli/")} == set()
    assert {path for path in importers("click") if not path.startswith("cli/")} == set()


def test_torch_and_monai_stay_in_their_rooms():
    rooms = ("models/", "train/", "export/", "generate.py")
    assert {p for m in ("torch", "monai") for p in importers(m) if not p.startswith(rooms)} == set()


def test_library_code_neither_prints_nor_exits_nor_reads_the_environment():
    pattern = re.compile(r"\bprint\(|sys\.exit|os\.environ|os\.getenv|np\.random\.seed")
    guilty = [
        p.relative_to(PACKAGE).as_posix()
        for p in PACKAGE.rglob("*.py")
        if "cli" not in p.parts and pattern.search(p.read_text(encoding="utf-8"))
    ]
    assert guilty == []


def test_the_core_keeps_pybind_intrinsics_and_medicine_apart():
    for path in CSRC.rglob("*.?pp"):
        text = path.read_text(encoding="utf-8")
        room = path.relative_to(CSRC).parts[0]
        if room != "bindings":
            assert "pybind11" not in text, path
        if room != "simd":
            assert "immintrin" not in text, path
        assert not re.search(r"\b(patient|mri|synthetic)\b", text, re.IGNORECASE), path


def test_isa_files_define_nothing_but_their_table():
    tables = {"kernels.hpp", "similarity_kernels.hpp", "align.hpp", "registered_kernels.hpp"}
    allowed = {"immintrin.h", "arm_neon.h", "cstddef", "cstdint", "cstring"} | tables
    shared = {path.name for path in (CSRC / "simd").glob("*-inl.hpp")}
    levels = [path for path in (CSRC / "simd").glob("*.cpp") if not path.stem.endswith("dispatch")]
    assert len(levels) == 15
    for path in [*levels, *(CSRC / "simd").glob("*-inl.hpp")]:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"#include [<\"](.+?)[>\"]", text)) <= allowed | shared, path
        outside = re.sub(r"namespace \{.*\n\}  // namespace\n", "", text, flags=re.DOTALL)
        assert len(re.findall(r"^extern const \w*Kernels", outside, re.MULTILINE)) == (path.suffix == ".cpp"), path
        assert "(" not in re.sub(r"//.*|#.*", "", outside), path
