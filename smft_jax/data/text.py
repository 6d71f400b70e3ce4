"""Tasks without documents: a base of text of one's own, and what is held out.

The text may be of any size: a folder of prepared rows stays on the disk.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from smft_jax.data import real_text
from smft_jax.data import task
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig(real_text.RealTextConfig):
  """The texts of a base that learns no documents.

  Attributes:
    kind: 'text', which streams nothing.
  """

  kind: Literal['text'] = 'text'
  known_set: str = ''


def make_task(config: TextConfig) -> task.Task:
  """Reads the sources.

  Raises:
    UserError: Data is missing or broken.
  """
  problems = problems_lib.Problems(config.bad_input)
  reader = sources.Reader(problems, config.data_dir)
  made, _ = real_text.base_task(config, reader)
  return dataclasses.replace(made, counts=made.counts | problems.record())
