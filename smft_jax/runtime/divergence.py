"""Steps without a finite loss and gradient: told, counted, and not for ever.

`train_step` skips such a step by itself. Here a loop learns of it: one step
late, so that it does not wait for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from absl import logging


class Diverged(RuntimeError):
  """Too many steps in a row were skipped; the last good state is saved."""


class Watch:
  """Looks at the steps of a loop.

  Args:
    phase: What the loop is, 'pretraining'.
    limit: Skipped steps in a row at which to stop.
    advice: What a person can do about it.
    in_a_row: Steps that were skipped just before the loop began.
  """

  def __init__(self, phase: str, limit: int, advice: str, in_a_row: int = 0):
    self._phase, self._limit, self._advice = phase, limit, advice
    self._in_a_row = in_a_row
    self._pending: tuple[Mapping[str, Any], str] | None = None
    self.exceeded = False

  def look(self, values: Mapping[str, Any], batch: str) -> None:
    """Takes a step's numbers, and looks at those of the step before.

    Args:
      values: What `train_step` returned beside the state.
      batch: What the step's batch is called.
    """
    self._look_at_pending()
    self._pending = (values, batch)

  def finish(self) -> None:
    """Looks at the last step, and ends the loop.

    Raises:
      Diverged: If so many steps in a row were skipped, these or those before
        the loop began.
    """
    self._look_at_pending()
    if self.exceeded or self._in_a_row >= self._limit:
      raise Diverged(
        f'{self._phase} diverged: {self._limit} steps in a row had no finite'
        f' loss and gradient, and were skipped; {self._advice}'
      )

  def _look_at_pending(self) -> None:
    if self._pending is None:
      return
    values, batch = self._pending
    self._pending = None
    self._in_a_row = int(values['skipped_in_a_row'])
    if self._in_a_row:
      logging.warning(
        '%s: skipped %s: no finite loss and gradient (loss %s)',
        self._phase,
        batch,
        float(values['loss']),
      )
    self.exceeded = self.exceeded or self._in_a_row >= self._limit


def rows_named(rows, most: int = 8) -> str:
  """Names the rows of a batch, the first ones if they are many.

  Example:
    >>> rows_named([3, 17]), rows_named([5, 6, 7], most=2)
    ('rows 3, 17', 'rows 5, 6, ...')
  """
  named = ', '.join(str(int(row)) for row in rows[:most])
  return f'rows {named}' + (', ...' if len(rows) > most else '')
