"""Lessons: the rows of a value table that a run changed, as a small file.

The functions on tables are here; the program is `python -m smft_jax.lesson`.
"""

from __future__ import annotations

from smft_jax.lesson.combine import merge
from smft_jax.lesson.combine import overlap
from smft_jax.lesson.combine import overlay
from smft_jax.lesson.table import Lesson
from smft_jax.lesson.table import apply
from smft_jax.lesson.table import check_base
from smft_jax.lesson.table import check_rows
from smft_jax.lesson.table import difference
from smft_jax.lesson.table import fingerprint
from smft_jax.lesson.table import revert

__all__ = [
  'Lesson', 'apply', 'check_base', 'check_rows', 'difference', 'fingerprint',
  'merge', 'overlap', 'overlay', 'revert',
]  # fmt: skip
