"""The answer of a search by definition: every pair, exactly summed, fully sorted. Imports nothing of ours."""

from __future__ import annotations

import math

import numpy as np


def score_matrix(queries, base):
    """float32(math.fsum(products)): products of two float32 are exact in float64."""
    wide = base.astype(np.float64)
    scores = [[np.float32(math.fsum(query * row)) for row in wide] for query in queries.astype(np.float64)]
    return np.array(scores, np.float32).reshape(len(queries), len(base))


def ranked(scores, ids):
    """Indices in the total order: higher score first, then lower id; -0 and +0 are equal."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], ids[i]))


def top_k(scores, k, *, allowed=None, groups=None, cap=0, offset=0):
    """Scores and ids ``(n_queries, k)``, padded with (-inf, -1)."""
    out_scores = np.full((len(scores), k), -np.inf, np.float32)
    out_ids = np.full((len(scores), k), -1, np.int64)
    for query, row in enumerate(scores):
        taken: dict[int, int] = {}
        place = 0
        for i in ranked(row, range(len(row))):
            if place == k:
                break
            if allowed is not None and not allowed[query, i]:
                continue
            if cap and groups[i] != -1:
                taken[groups[i]] = taken.get(groups[i], 0) + 1
                if taken[groups[i]] > cap:
                    continue
            out_scores[query, place], out_ids[query, place] = row[i], i + offset
            place += 1
    return out_scores, out_ids
