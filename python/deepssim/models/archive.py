"""Tensors out of a TorchScript archive, without executing anything in it.

``torch.jit.load`` compiles and can run the code of an archive. Here the zip file's pickle is read by an unpickler that
knows a short list of opcodes and names: containers, tensors and their storages. Classes of the archive's modules become
plain dictionaries; any other name ends the reading. Sizes are checked before memory is taken.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepssim.errors import MetricError

__all__ = ["is_archive", "read_archive"]

MAX_MEMBERS = 20_000
MAX_BYTES = 2**33
MAX_PICKLE_BYTES = 2**24
MAX_OPCODES = 2**21
MAX_TENSORS = 50_000
MAX_DEPTH = 64
MAX_RANK = 16
MAX_ELEMENTS = 2**40
_DTYPES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
}  # fmt: skip

# What torch writes, and no more.
_OPCODES = frozenset({
    "PROTO", "STOP", "MARK", "GLOBAL", "NEWOBJ", "BUILD", "REDUCE", "BINPERSID",
    "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS",
})  # fmt: skip


def is_archive(path: Path) -> bool:
    """Return whether a file looks like a TorchScript archive; what ``torch.save`` writes is a zip file too."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(PurePosixPath(name).name == "constants.pkl" for name in archive.namelist())
    except Exception:  # zipfile meets a damaged file with any of a dozen types
        return False


def read_archive(path: Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of a TorchScript archive.

    Args:
        path: What ``torch.jit.save`` wrote.

    Returns:
        Tensors by their dotted name, in the archive's order; those that share memory there share it here. A module
        that has two names is found under its first.

    Raises:
        MetricError: It is no such archive, is damaged, or holds what a list of tensors does not need.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _checked_root(archive, path)
            value = _unpickle(_member(archive, f"{root}data.pkl", MAX_PICKLE_BYTES, path), path)
            storages: dict[str, Tensor] = {}
            tensors: dict[str, Tensor] = {}
            for name, view in _tensors(value, path):
                if name in tensors:
                    raise MetricError(f"{path} is refused: two of its tensors have one name")
                tensors[name] = _load(archive, root, view, storages, path)
            return tensors
    except MetricError:
        raise
    except Exception as error:  # zipfile meets a damaged file with any of a dozen types
        raise MetricError(f"{path} is no TorchScript archive: {str(error)[:200] or type(error).__name__}") from error


def _checked_root(archive: zipfile.ZipFile, path: Path) -> str:
    members = archive.infolist()
    names = [member.filename for member in members]
    roots = [name.removesuffix("data.pkl") for name in names if PurePosixPath(name).name == "data.pkl"]
    if len(roots) != 1:
        raise MetricError(f"{path} is no TorchScript archive: it holds {len(roots)} files data.pkl")
    if len(members) > MAX_MEMBERS or len(set(names)) != len(names):
        raise MetricError(f"{path} is refused: too many files in it, or two of one name")
    if sum(member.file_size for member in members) > MAX_BYTES:
        raise MetricError(f"{path} is refused: it says that it holds more than {MAX_BYTES / 2**30:.0f} GiB")
    for member in members:
        if member.flag_bits & 0x1 or PurePosixPath(member.filename).is_absolute() or ".." in member.filename.split("/"):
            raise MetricError(f"{path} is refused: a file in it is encrypted, or its name leads elsewhere")
    order = f"{roots[0]}byteorder"
    if order in names and _member(archive, order, 16, path) != b"little":
        raise MetricError(f"{path} was written on a machine with another byte order")
    return roots[0]


def _member(archive: zipfile.ZipFile, name: str, largest: int, path: Path) -> bytes:
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise MetricError(f"{path} is damaged: {name} is missing") from None
    # Torch stores without compression, so that nothing can unfold to more than it is.
    if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
        raise MetricError(f"{path} is refused: {name} is compressed, which torch's archives never are")
    if member.file_size > largest:
        raise MetricError(f"{path} is refused: {name} has {member.file_size:,} bytes")
    return archive.read(member)


# Tuples, so that nothing in a pickle can change them once they are checked: BUILD sets the fields of other objects.
class _Storage(NamedTuple):
    key: str
    dtype: torch.dtype
    n: int


class _View(NamedTuple):
    """A tensor before its storage is read."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Module:
    """What a class of the archive becomes: its fields and nothing else."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}

    def __setstate__(self, state: object) -> None:
        if isinstance(state, dict):
            self.fields = {str(name): value for name, value in state.items()}


def _view(storage: object, offset: object, size: object, stride: object, *_: object) -> _View:
    if not isinstance(storage, _Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise pickle.UnpicklingError("a tensor without storage, size or stride")
    if len(size) != len(stride) or len(size) > MAX_RANK or not all(map(_is_count, (offset, *size, *stride))):
        raise pickle.UnpicklingError("a tensor of impossible shape")
    assert isinstance(offset, int)
    return _View(storage, offset, size, stride)


def _is_count(value: object) -> bool:
    # Whole numbers of a pickle can have millions of digits, and their product is taken.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_ELEMENTS


def _same(value: object, *_: object) -> object:
    return value


def _empty() -> OrderedDict[Any, Any]:
    # Without arguments, as torch calls it: copies of copies would take any memory.
    return OrderedDict()


_NAMES = {
    ("collections", "OrderedDict"): _empty,
    ("torch", "device"): _same,
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch.jit._pickle", "build_boollist"): _same,
    ("torch.jit._pickle", "build_doublelist"): _same,
    ("torch.jit._pickle", "build_intlist"): _same,
    ("torch.jit._pickle", "build_tensorlist"): _same,
    ("torch.jit._pickle", "restore_type_tag"): _same,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".", maxsplit=1)[0] == "__torch__":
            return _Module
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"the name {module}.{name} has no place in a list of tensors")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), str(), n) if _is_count(n) and key.isalnum():
                return _Storage(key, dtype, n)
        raise pickle.UnpicklingError("a storage that is none")


def _check_opcodes(data: bytes) -> None:
    """Refuse what makes Python's unpickler take memory before it looks at anything."""
    for n, (opcode, argument, _) in enumerate(pickletools.genops(data), 1):
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f"the opcode {opcode.name} has no place in a list of tensors")
        # The memo is a table as long as its largest index: nine bytes could ask for all memory.
        if opcode.name in ("BINPUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise pickle.UnpicklingError("a place in the memo beyond everything that there is")
        if n > MAX_OPCODES:
            raise pickle.UnpicklingError(f"more than {MAX_OPCODES:,} opcodes")


def _unpickle(data: bytes, path: Path) -> Any:
    try:
        _check_opcodes(data)
        return _Unpickler(io.BytesIO(data)).load()
    except MemoryError:
        raise MetricError(f"{path} is refused: it asks for more memory than there is") from None
    except Exception as error:  # a hostile pickle can raise anything, and nothing of it is ours
        raise MetricError(f"{path} is refused: {str(error)[:200] or type(error).__name__}") from error


def _tensors(value: Any, path: Path) -> Iterator[tuple[str, _View]]:
    """Yield the tensors of nested modules by name; a module that comes twice is gone through once."""
    if not isinstance(value, _Module):
        what = "weights alone, as torch.save writes them" if isinstance(value, dict) else "no module"
        raise MetricError(f"{path} holds {what}: give what torch.jit.save wrote, such as best_model_jit.pt")
    waiting: list[tuple[str, _Module, int]] = [("", value, 0)]
    seen: set[int] = set()
    n = 0
    while waiting:
        prefix, module, depth = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        if depth > MAX_DEPTH:
            raise MetricError(f"{path} is refused: modules are nested too deeply")
        below = []
        for name, field in module.fields.items():
            if isinstance(field, _View):
                n += 1
                yield f"{prefix}{name}", field
            elif isinstance(field, _Module):
                below.append((f"{prefix}{name}.", field, depth + 1))
        waiting += reversed(below)
        if n > MAX_TENSORS:
            raise MetricError(f"{path} is refused: it holds more than {MAX_TENSORS:,} tensors")


def _load(archive: zipfile.ZipFile, root: str, view: _View, storages: dict[str, Tensor], path: Path) -> Tensor:
    """Look at a storage as a tensor; each storage is read once, so that no more memory is taken than the file has."""
    storage = view.storage
    n = math.prod(view.size)
    last = view.offset + sum((size - 1) * stride for size, stride in zip(view.size, view.stride, strict=True))
    # No more elements than the storage has: an expanded one would be any size for nothing, and so would a tensor of
    # which one side is 0.
    if max(n, *view.size, 0) > storage.n or (n and last >= storage.n):
        raise MetricError(f"{path} is damaged: a tensor reaches beyond its storage {storage.key}")
    whole = storages.get(storage.key)
    if whole is None:
        whole = storages[storage.key] = _read_storage(archive, root, storage, path)
    if (whole.dtype, len(whole)) != (storage.dtype, storage.n):
        raise MetricError(f"{path} is damaged: two tensors take storage {storage.key} for different things")
    if n == 0:
        return torch.empty(view.size, dtype=storage.dtype)
    return whole.as_strided(view.size, view.stride, view.offset)


def _read_storage(archive: zipfile.ZipFile, root: str, storage: _Storage, path: Path) -> Tensor:
    data = _member(archive, f"{root}data/{storage.key}", MAX_BYTES, path)
    n_bytes = storage.n * storage.dtype.itemsize
    if len(data) != n_bytes:
        raise MetricError(f"{path} is damaged: storage {storage.key} has {len(data):,} bytes, not {n_bytes:,}")
    # A copy, since torch warns of memory that cannot be written.
    return torch.frombuffer(bytearray(data), dtype=storage.dtype) if data else torch.empty(0, dtype=storage.dtype)
