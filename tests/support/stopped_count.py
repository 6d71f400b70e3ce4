"""Counts a background, saves each batch, and gets a real signal meanwhile.

  python -m tests.support.stopped_count SIGNAL MODULE.FUNCTION CALL FLAG...

is `python -m smft_jax.background count FLAG...`, and signals itself as
`stopped_run` does.
"""

import signal
import sys
from unittest import mock

from smft_jax import background
from smft_jax.runs import background_cache
from smft_jax.runtime import program
from tests.support import stopped_run

if __name__ == '__main__':
  stopped_run.stop_at(
    signal.Signals[sys.argv[1]], sys.argv[2], int(sys.argv[3])
  )
  with mock.patch.multiple(background_cache, _SUMMED=1, _SAVE_EVERY_S=0):
    sys.exit(program.run(background.main, ['count', *sys.argv[4:]]))
