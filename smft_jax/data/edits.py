"""Tasks whose target stream is knowledge edits, taught one after another.

An edit makes a model continue a prompt with something new. Training sees texts
made from the one prompt (`retelling.edits`). Evaluation asks by the prompt
itself, by rephrasings, which training never shows, and by prompts on other
subjects, whose continuation must stay.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Literal

from smft_jax import schema
from smft_jax.data import background
from smft_jax.data import real_text
from smft_jax.data import task
from smft_jax.data.general import prose
from smft_jax.data.retelling import edits as retelling
from smft_jax.data.sources import edits as edits_lib
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class EditsConfig(real_text.SourcesConfig):
  """Knowledge edits, streamed into a pretrained model.

  Attributes:
    kind: 'edits', the kind of data.
    edits_file: Source of edits, see `sources.edits`.
    num_edits: The first edits of it; None takes all.
    fields: Names of the fields of an edit.
    augmentations: Texts made from each edit's prompt.

  Raises:
    UserError: A value is out of range, or there is no file.
  """

  general = True  # for a base that knows the world

  kind: Literal['edits'] = 'edits'
  edits_file: str = ''
  num_edits: int | None = None
  fields: edits_lib.Fields = dataclasses.field(default_factory=edits_lib.Fields)
  augmentations: int = 16

  def __post_init__(self) -> None:
    super().__post_init__()
    schema.at_least(1, self, 'num_edits', 'augmentations')
    if not self.edits_file:
      raise schema.UserError(
        'edits_file is empty: give a file of edits, see docs/guides/edits.md'
      )


def make_task(config: EditsConfig) -> task.Task:
  """Makes a task with a document for each edit.

  Raises:
    UserError: The file or data of `data_dir` is missing or broken, no edit has
      a field that the config names, or an edit contradicts what another one
      keeps.
  """
  problems = problems_lib.Problems(config.bad_input)
  reader = sources.Reader(problems, config.data_dir)
  # The edits first: the user's own file is the likeliest to be wrong.
  found = reader.edits(config.edits_file, config.fields)[: config.num_edits]
  _check_named(found, config.fields)
  _check_kept(found, config.fields)
  base, _ = background.base_task(config, reader)
  contexts = prose.short_sentences()
  documents = tuple(_document(edit, contexts, config) for edit in found)
  return dataclasses.replace(
    base,
    documents=documents,
    are_edits=True,
    counts={
      'documents': len(documents),
      'rephrasings': sum(len(edit.rephrasings) for edit in found),
      'locality_prompts': sum(len(edit.locality) for edit in found),
      **base.counts,
      **problems.record(),
    },
  )


def _check_named(
  found: Sequence[edits_lib.SourceEdit], fields: edits_lib.Fields
) -> None:
  """Raises UserError if no edit has a field that a config names."""
  for name, attribute in (
    ('subject', 'subject'),
    ('rephrase', 'rephrasings'),
    ('locality', 'locality'),
  ):
    value = getattr(fields, name)
    is_named = value != getattr(edits_lib.Fields, name)
    if is_named and not any(getattr(edit, attribute) for edit in found):
      raise schema.UserError(
        f'config.data.fields.{name} = {value!r}, but none of the'
        f' {len(found)} edits has such a field'
      )


def _check_kept(
  found: Sequence[edits_lib.SourceEdit], fields: edits_lib.Fields
) -> None:
  """Raises UserError if one edit changes what another one is to keep."""
  edited = {edit.prompt: edit.place for edit in found}
  for edit in found:
    for prompt, _ in edit.locality:
      if prompt in edited:
        raise schema.UserError(
          f'{edit.place}: {fields.locality!r} {prompt[:60]!r} must stay, but'
          f' {edited[prompt]} edits it'
        )


def _document(
  edit: edits_lib.SourceEdit, contexts: Sequence[str], config: EditsConfig
) -> task.Document:
  texts = retelling.edit_texts(
    edit.prompt,
    edit.target,
    subject=edit.subject,
    contexts=contexts,
    count=config.augmentations,
    # The same texts at any place in any stream.
    seed=f'{config.seed}/{edit.prompt}',
  )

  def question(prompt: str, answer: str, phrasing: str) -> task.Question:
    return task.Question(
      prompt=prompt,
      answers=(answer,),
      phrasing=phrasing,
      seen=phrasing == 'prompt',
      fact=edit.id,
      place=edit.place,
    )

  return task.Document(
    id=edit.id,
    augmentations=texts,
    questions=(
      question(edit.prompt, edit.target, 'prompt'),
      *(question(p, edit.target, 'rephrasing') for p in edit.rephrasings),
    ),
    texts=(texts[0],),
    kept=tuple(question(*pair, 'locality') for pair in edit.locality),
  )
