from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

class Cancelled(RuntimeError): ...

class MemoryLimitTooSmall(MemoryError):
    minimum_bytes: int

class Plan:
    @property
    def base_bytes(self) -> int: ...
    @property
    def prepared_bytes(self) -> int: ...
    @property
    def tally_bytes(self) -> int: ...
    @property
    def worker_bytes(self) -> int: ...
    @property
    def row_bytes(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def query_block(self) -> int: ...
    @property
    def chunk_rows(self) -> int: ...
    @property
    def total_bytes(self) -> int: ...

class CancelToken:
    def __init__(self) -> None: ...
    def cancel(self) -> None: ...
    @property
    def is_cancelled(self) -> bool: ...

class RowTally:
    def __init__(self, rows: int, levels: int) -> None: ...
    @property
    def counts(self) -> NDArray[np.int64]: ...
    @property
    def best_scores(self) -> NDArray[np.float32]: ...
    @property
    def best_queries(self) -> NDArray[np.int64]: ...

class ReverseTopk:
    def __init__(self, rows: int, k: int, max_per_group: int = 0) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def k(self) -> int: ...
    def read(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...

class Searcher:
    def __init__(
        self, dim: int, capacity: int, *, with_groups: bool = False, id_offset: int = 0, isa: str = ""
    ) -> None: ...
    def __len__(self) -> int: ...
    def add(self, rows: NDArray[np.float32], groups: NDArray[np.int64] | None = None) -> None: ...
    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        *,
        max_per_group: int = 0,
        thresholds: Sequence[float] = ...,
        max_listed: int = 0,
        query_groups: NDArray[np.int64] | None = None,
        exclude_same_group: bool = False,
        exclude_same_id: bool = False,
        first_query: int = 0,
        tally: RowTally | None = None,
        reverse: ReverseTopk | None = None,
        cancel: CancelToken | None = None,
        threads: int = 0,
        memory_limit: int = 0,
        may_rotate: bool = False,
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.int64],
        NDArray[np.int64],
        NDArray[np.float32],
        NDArray[np.int64],
        dict[str, int],
    ]: ...
    def count(
        self,
        queries: NDArray[np.float32],
        thresholds: Sequence[float],
        *,
        query_groups: NDArray[np.int64] | None = None,
        exclude_same_group: bool = False,
        exclude_same_id: bool = False,
        first_query: int = 0,
        tally: RowTally | None = None,
        reverse: ReverseTopk | None = None,
        cancel: CancelToken | None = None,
        threads: int = 0,
        memory_limit: int = 0,
    ) -> tuple[list[int], list[int], dict[str, int]]: ...
    def prepare(self, *, head: int = 0, rotation: NDArray[np.float32] | None = None, threads: int = 0) -> None: ...
    def sample(self, most: int) -> NDArray[np.float32]: ...
    def prepared_header(self) -> dict[str, int]: ...
    def write_prepared(self, write: Callable[[memoryview], object]) -> None: ...
    def forget_prepared(self) -> None: ...
    def read_prepared(
        self, read: Callable[[memoryview], object], *, dim: int, rows: int, head: int, is_rotated: bool
    ) -> None: ...
    @property
    def codes(self) -> str: ...
    def is_prepared(self) -> bool: ...
    @property
    def dim(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def id_offset(self) -> int: ...
    @property
    def isa(self) -> str: ...

def exact_scores(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]: ...
def measure_peak(isa: str = "", threads: int = 0) -> dict[str, float]: ...
def merge_topk(
    scores: NDArray[np.float32],
    ids: NDArray[np.int64],
    groups: NDArray[np.int64] | None = None,
    max_per_group: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]: ...
def plan_search(
    base_rows: int,
    dim: int,
    *,
    k: int = 0,
    max_listed: int = 0,
    levels: int = 0,
    with_groups: bool = False,
    with_cap: bool = False,
    with_tally: bool = False,
    with_rotation: bool = False,
    reverse_k: int = 0,
    with_reverse_cap: bool = False,
    threads: int = 0,
    memory_limit: int = 0,
    max_chunk_rows: int = 65536,
    isa: str = "",
) -> Plan: ...
def resize_area(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]: ...
def similarity_map(
    kind: str,
    a: NDArray[np.uint8] | NDArray[np.float32],
    b: NDArray[np.uint8] | NDArray[np.float32],
    *,
    data_range: float = 0.0,
    window: str = "uniform",
    with_z_score: bool = False,
    isa: str = "",
) -> NDArray[np.float64]: ...
def similarity_matrix(
    kind: str,
    first: NDArray[np.uint8] | NDArray[np.float32],
    second: NDArray[np.uint8] | NDArray[np.float32],
    out: NDArray[np.float32] | NDArray[np.float64],
    *,
    data_range: float = 0.0,
    window: str = "uniform",
    with_z_score: bool = False,
    threads: int = 0,
    cancel: CancelToken | None = None,
    isa: str = "",
    names: tuple[str, str] = ...,
) -> None: ...
def similarity_pair(
    kind: str,
    a: NDArray[np.uint8] | NDArray[np.float32],
    b: NDArray[np.uint8] | NDArray[np.float32],
    *,
    data_range: float = 0.0,
    window: str = "uniform",
    with_z_score: bool = False,
    isa: str = "",
) -> float: ...
def similarity_pairs(
    kind: str,
    first: NDArray[np.uint8] | NDArray[np.float32],
    second: NDArray[np.uint8] | NDArray[np.float32],
    index_pairs: NDArray[np.int64],
    *,
    data_range: float = 0.0,
    window: str = "uniform",
    with_z_score: bool = False,
    threads: int = 0,
    cancel: CancelToken | None = None,
    isa: str = "",
    names: tuple[str, str] = ...,
) -> NDArray[np.float64]: ...
def resolve_isa(requested: str = "") -> str: ...
def supported_isa_levels() -> list[str]: ...
def usable_processors() -> int: ...
def make_views(
    image: NDArray[np.float32],
    *,
    n_angles: int,
    zooms: Sequence[float],
    shift: int,
    least_overlap: float,
    with_mirror: bool,
    aspect: float = 1.0,
) -> NDArray[np.float32]: ...

class RegistrationImage:
    def __init__(self, image: NDArray[np.float32], *, isa: str = "") -> None: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def bytes(self) -> int: ...

def register_images(
    fixed: RegistrationImage, moving: RegistrationImage, *, with_scale: bool = True, isa: str = ""
) -> tuple[tuple[bool, float, float, float, float], float, float]: ...
def evidence(
    fixed: RegistrationImage,
    moving: RegistrationImage,
    transform: tuple[bool, float, float, float, float],
    *,
    with_maps: bool = False,
    isa: str = "",
) -> tuple[float, float, float, float, float, NDArray[np.float32], NDArray[np.float32]]: ...
def verify_images(
    fixed: Sequence[RegistrationImage],
    moving: Sequence[RegistrationImage],
    starts: NDArray[np.int64],
    candidates: NDArray[np.int64],
    *,
    with_scale: bool = True,
    threads: int = 0,
) -> NDArray[np.float64]: ...
def warp_image(
    image: NDArray[np.float32], transform: tuple[bool, float, float, float, float]
) -> NDArray[np.float32]: ...
def transform_matrix(
    transform: tuple[bool, float, float, float, float], rows: int, cols: int
) -> list[float]: ...
def inverse_transform(
    transform: tuple[bool, float, float, float, float]
) -> tuple[bool, float, float, float, float]: ...
def registered_similarity(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    transform: tuple[bool, float, float, float, float],
    *,
    with_maps: bool = False,
    isa: str = "",
) -> tuple[float, float, float, float, float, NDArray[np.float32], NDArray[np.float32]]: ...
