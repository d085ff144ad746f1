from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fake_audit import Kind, write_audit


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an audit folder full of hostile names; not to be changed."""
    return write_audit(tmp_path_factory.mktemp("hostile") / "audit")


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    """Return a small audit folder with plain names, to be changed at will."""
    return write_audit(tmp_path / "audit", Kind(n_pairs=2, n_skipped=5, is_hostile=False))
