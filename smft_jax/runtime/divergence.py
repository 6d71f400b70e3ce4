"""Reports steps that were skipped as not finite; stops after too many in a row.

`train_step` itself skips a step whose loss or gradient is not finite. A loop
hears of it one step late, so that it does not wait for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from absl import logging


class Diverged(RuntimeError):
  """Too many steps in a row were skipped; the last good state is saved."""


class Watch:
  """Watches the steps of a loop.

  Attributes:
    exceeded: Whether `limit` steps in a row were skipped.

  Args:
    phase: Name of the loop, such as 'pretraining'.
    limit: Number of skipped steps in a row at which to stop.
    advice: Ends the error message: what the user can do.
    in_a_row: Steps skipped just before the loop began.
  """

  def __init__(self, phase: str, limit: int, advice: str, in_a_row: int = 0):
    self._phase, self._limit, self._advice = phase, limit, advice
    self._in_a_row = in_a_row
    self._pending: tuple[Mapping[str, Any], str] | None = None
    self.exceeded = False

  def update(self, values: Mapping[str, Any], batch: str) -> None:
    """Takes the metrics of a step, and checks those of the step before.

    Args:
      values: The metrics that `train_step` returned.
      batch: Names the batch in the warning.
    """
    self._check_pending()
    self._pending = (values, batch)

  def finish(self) -> None:
    """Checks the last step; call it after the loop.

    Raises:
      Diverged: If `limit` steps in a row were skipped, those before the loop
        included.
    """
    self._check_pending()
    if self.exceeded or self._in_a_row >= self._limit:
      raise Diverged(
        f'{self._phase} diverged: {self._limit} steps in a row were skipped,'
        f' their loss or gradient not finite; {self._advice}'
      )

  def _check_pending(self) -> None:
    if self._pending is None:
      return
    values, batch = self._pending
    self._pending = None
    self._in_a_row = int(values['skipped_in_a_row'])
    if self._in_a_row:
      logging.warning(
        '%s: skipped %s: loss or gradient not finite (loss %s)',
        self._phase,
        batch,
        float(values['loss']),
      )
    self.exceeded = self.exceeded or self._in_a_row >= self._limit


def format_rows(rows, most: int = 8) -> str:
  """Formats row numbers, at most the first `most`.

  Example:
    >>> format_rows([3, 17]), format_rows([5, 6, 7], most=2)
    ('rows 3, 17', 'rows 5, 6, ...')
  """
  text = ', '.join(str(int(row)) for row in rows[:most])
  return f'rows {text}' + (', ...' if len(rows) > most else '')
