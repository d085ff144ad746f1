"""Images that repeat others of the same set, and which of them to keep (SemDeDup)."""

from deepssim.dedup.files import check_manifest, write_dedup
from deepssim.dedup.find import DedupOptions, Duplicates, closest_earlier, deduplicate

__all__ = ["DedupOptions", "Duplicates", "check_manifest", "closest_earlier", "deduplicate", "write_dedup"]
