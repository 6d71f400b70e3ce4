"""What progress shows."""

import contextlib
import io

import jax.numpy as jnp
import pytest

from smft_jax.runtime import progress


class Terminal(io.StringIO):
  def isatty(self):
    return True


class Clock:
  """Seconds that pass only when set."""

  now = 0.0

  def __call__(self):
    return self.now


def test_a_log_gets_a_line_every_few_seconds_and_at_the_end():
  out, clock = io.StringIO(), Clock()
  with progress.Progress('pretrain', 100, stream=out, clock=clock) as bar:
    clock.now = 30.0  # compiling
    for step in range(1, 101):
      bar.update(step, tokens=1000, loss=jnp.float32(2.5))
      clock.now += 0.25
  lines = out.getvalue().splitlines()
  assert lines[0] == 'pretrain: step 1/100  loss 2.5'
  # 20 steps later: 5 s at 4 steps a second, and 79 steps to go.
  assert lines[1] == 'pretrain: step 21/100  loss 2.5  4k tok/s  20s left'
  assert lines[-2].startswith('pretrain: step 100/100')
  assert lines[-1] == 'pretrain took 55s'
  assert len(lines) == 5 + 1 + 1


@pytest.mark.parametrize(
  ('seconds', 'wanted'),
  [(3, []), (6, ['measuring: set 2/2  0s left', 'measuring took 12s'])],
)
def test_a_short_phase_shows_nothing(seconds, wanted):
  out, clock = io.StringIO(), Clock()
  with progress.Progress(
    'measuring', 2, 'set', stream=out, clock=clock, after_s=10.0
  ) as bar:
    for step in (1, 2):
      clock.now += seconds
      bar.update(step)
  lines = out.getvalue().splitlines()
  assert lines == wanted


def test_the_share_of_time_that_input_took_is_shown_at_the_end():
  out, clock = io.StringIO(), Clock()
  with progress.Progress('pretrain', 4, stream=out, clock=clock) as bar:
    for step in range(1, 5):
      # A read that fails counts too.
      with contextlib.suppress(OSError), bar.waiting():
        clock.now += 0.25
        if step == 3:
          raise OSError
      clock.now += 49.75
      bar.update(step)
  assert bar.waited_s == 1.0
  last = out.getvalue().splitlines()[-1]
  assert last == 'pretrain took 3m20s, 0.5% of it waiting for input'


def test_progress_of_a_resumed_phase_counts_only_its_own_steps():
  out, clock = io.StringIO(), Clock()
  bar = progress.Progress(
    'stream', 50, 'document', start=40, stream=out, clock=clock, every_s=1.0
  )
  bar.update(41)
  clock.now = 2.0
  bar.update(42)
  assert out.getvalue().splitlines()[-1] == 'stream: document 42/50  16s left'


def test_values_are_not_looked_at_between_lines():
  class Unready:
    def __float__(self):
      raise AssertionError('the device was waited for')

  clock = Clock()
  bar = progress.Progress('x', 9, stream=io.StringIO(), clock=clock)
  bar.update(1, loss=1.0)
  bar.update(2, loss=Unready())
  clock.now = 6.0
  with pytest.raises(AssertionError, match='waited'):
    bar.update(3, loss=Unready())


def test_a_terminal_gets_one_line_with_a_bar(monkeypatch):
  monkeypatch.setenv('COLUMNS', '100')
  out, clock = Terminal(), Clock()
  with progress.Progress('x', 4, stream=out, clock=clock) as bar:
    for step in range(1, 5):
      clock.now += 1.0
      bar.update(step, loss=1.0)
  text = out.getvalue()
  drawn = text.split('\r')[1:]
  assert len(drawn) == 4
  assert text.count('\n') == 2  # after the bar, and after the closing line
  assert drawn[1].count('=') == 15
  assert '[' + '=' * 30 + ']' in drawn[3]


def test_a_narrow_terminal_is_not_overrun(monkeypatch):
  monkeypatch.setenv('COLUMNS', '20')
  out = Terminal()
  bar = progress.Progress('pretrain', 4000, stream=out, clock=Clock())
  bar.update(17, loss=1.0)
  drawn = out.getvalue().removeprefix('\r').removesuffix('\x1b[K')
  assert len(drawn) < 20
