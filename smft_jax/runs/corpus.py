"""The texts that a run reads in bulk: which there are, their rows and batches.

Texts in memory are tokenised, once for each base. Prepared rows stay on the
disk.
"""

from __future__ import annotations

import dataclasses
import pathlib

from smft_jax import hf
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.data import encoded
from smft_jax.data import packing
from smft_jax.data import prepared as prepared_lib
from smft_jax.data import real_text
from smft_jax.data import stream as stream_lib
from smft_jax.data import task as task_lib
from smft_jax.data import token_cache
from smft_jax.data import tokenizers
from smft_jax.sharded import layout as layout_lib
from smft_jax.store import paths

# Most batches whose rows are sorted by length together.
_SORTED_STEPS = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
  """Texts, and prepared rows in front of them.

  Attributes:
    texts: The texts.
    prepared: The rows; None for none.
  """

  texts: tuple[task_lib.Text, ...]
  prepared: prepared_lib.Prepared | None = None

  def rows(
    self,
    folder: pathlib.Path,
    tokenizer: tokenizers.Tokenizer,
    max_length: int,
    *,
    pack_seed: int | None = None,
  ) -> encoded.Rows:
    """Returns the rows.

    Args:
      folder: The base's folder, which keeps tokens of texts.
      tokenizer: The base's.
      max_length: Tokens in a row.
      pack_seed: Seed by which texts are packed; None does not pack them.
        Prepared rows are packed or not as they were prepared.
    """
    if self.prepared is not None and not self.texts:
      return self.prepared
    rows = token_cache.tokenized(folder, self.texts, tokenizer, max_length)
    if pack_seed is not None:
      rows = packing.pack(rows, max_length, pack_seed)
    if self.prepared is None:
      return rows
    return encoded.Joined(self.prepared, rows)

  def some_texts(
    self, tokenizer: tokenizers.Tokenizer, most: int
  ) -> list[task_lib.Text]:
    """Returns texts, evenly spaced; of prepared rows, what their tokens spell.

    Args:
      tokenizer: The base's.
      most: Most texts.
    """
    num_rows = 0 if self.prepared is None else len(self.prepared)
    found = []
    for index in real_text.evenly(range(num_rows + len(self.texts)), most):
      if index >= num_rows:
        found.append(self.texts[index - num_rows])
        continue
      assert self.prepared is not None
      spelled = tokenizer.decode(self.prepared.take([index]).tokens)
      if spelled:
        found.append(task_lib.Text(text=spelled))
    return found


def find(name: str, task: task_lib.Task) -> Corpus:
  """Returns a corpus by its name in `config.background.corpus`.

  Raises:
    UserError: If there is no such corpus, or its rows cannot be read.
  """
  if prepared_lib.is_folder(name):
    return Corpus((), prepared_lib.read(name))
  corpora = {
    'pretraining': Corpus(task.pretraining, task.prepared),
    'stream': Corpus(tuple(t for d in task.documents for t in d.augmentations)),
    **{name: Corpus(texts) for name, texts in task.texts.items()},
  }
  return corpora[schema.one_of('config.background.corpus', name, corpora)]


def check(experiment: config_lib.Experiment, task: task_lib.Task) -> None:
  """Checks that prepared rows fit the base and what they are used for.

  Raises:
    UserError: If they do not; the line names the folder.
  """
  pretraining, background = task.prepared, None
  if experiment.background is not None:
    background = find(experiment.background.corpus, task).prepared
  for rows in (pretraining, background):
    if rows is not None:
      rows.check_length(experiment.base.max_length)
      rows.check_tokenizer(_fingerprint(experiment, task, rows))
  if pretraining is not None and experiment.base.kind == 'trained':
    _check_packed(experiment.base.packed, pretraining)
  if background is not None and background.packed:
    _check_documents(experiment.background, background)


def _check_packed(packed: bool, rows: prepared_lib.Prepared) -> None:
  if rows.packed != packed:
    raise schema.UserError(
      f'config.base.packed = {packed}, but {rows.folder} was prepared'
      f' {"with" if rows.packed else "without"} --packed'
    )


def _check_documents(settings, rows: prepared_lib.Prepared) -> None:
  if settings.document == 'sequence':
    raise schema.UserError(
      f'{rows.folder} was prepared with --packed, and a background of sequences'
      ' needs a row for each text: give a folder without it as'
      " config.background.corpus, or config.background.document = 'batch'"
    )


def _fingerprint(
  experiment: config_lib.Experiment,
  task: task_lib.Task,
  rows: prepared_lib.Prepared,
) -> str:
  """Returns the fingerprint of the tokenizer that the base will have."""
  given = getattr(experiment.data, 'tokenizer', '')
  if experiment.base.path:
    return hf.load_tokenizer(experiment.base.path).fingerprint()
  if given:
    return tokenizers.read(paths.expand(given)).fingerprint()
  if task.prepared is None:
    raise schema.UserError(
      f'{rows.folder} was prepared with another tokenizer than this base,'
      f' which makes its own: give config.data.tokenizer = {str(rows.folder)!r}'
    )
  return task.prepared.facts['tokenizer']


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
  corpus = find(settings.corpus, task)
  return stream_lib.Batches(
    rows=corpus.rows(folder, tokenizer, max_length),
    batch_size=settings.batch_size,
    # Not pretraining's own batches: its corpus, in another order.
    seed=seed + 1,
    pad_id=tokenizer.pad_id,
    layout=layout,
    # Documents that are batches need their rows in random order.
    sorted_steps=(
      _sorted_steps(settings.num_batches)
      if settings.document == 'sequence'
      else 1
    ),
  )


def _sorted_steps(num_batches: int) -> int:
  """Returns the size of about equal parts of the batches, 1024 at most."""
  parts = -(-num_batches // _SORTED_STEPS)
  return -(-num_batches // parts)
