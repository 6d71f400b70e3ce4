"""The background corpus: which texts it has, and its batches."""

from __future__ import annotations

import pathlib

from smft_jax import schema
from smft_jax.config import sections
from smft_jax.data import stream as stream_lib
from smft_jax.data import task as task_lib
from smft_jax.data import token_cache
from smft_jax.data import tokenizers
from smft_jax.sharded import layout as layout_lib


def texts(name: str, task: task_lib.Task) -> tuple[task_lib.Text, ...]:
  """Returns the texts of `config.background.corpus`.

  Raises:
    UserError: If there is no such corpus.
  """
  corpora = {
    'pretraining': task.pretraining,
    'stream': tuple(t for d in task.documents for t in d.augmentations),
    **task.texts,
  }
  return corpora[schema.one_of('config.background.corpus', name, corpora)]


def batches(
  settings: sections.BackgroundConfig,
  folder: pathlib.Path,
  task: task_lib.Task,
  tokenizer: tokenizers.Tokenizer,
  *,
  max_length: int,
  seed: int,
  layout: layout_lib.Layout | None = None,
) -> stream_lib.Batches:
  """Returns the batches of the background.

  Args:
    settings: The background.
    folder: The base's folder, which keeps tokens.
    task: The data.
    tokenizer: The base's.
    max_length: Tokens in a row.
    seed: The run's seed.
    layout: The base's.
  """
  return stream_lib.Batches(
    rows=token_cache.tokenized(
      folder, texts(settings.corpus, task), tokenizer, max_length
    ),
    batch_size=settings.batch_size,
    # Not pretraining's own batches: its corpus, in another order.
    seed=seed + 1,
    pad_id=tokenizer.pad_id,
    layout=layout,
    # Documents that are batches need their rows in random order.
    sorted_steps=(
      settings.num_batches if settings.document == 'sequence' else 1
    ),
  )
