"""Tasks that teach invented people to a base that knows the real world.

The people, their facts and the phrasings held out are those of `data.world`;
training also asks for each fact in phrasings of `world.text.more_questions`,
behind solved questions on other things, and ranks slots by the name alone.
Other people of the same world are in the background, where the base only reads
about them: it never learns them, so questions about them measure nothing.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from smft_jax import schema
from smft_jax.data import background
from smft_jax.data import real_text
from smft_jax.data import task
from smft_jax.data.retelling import examples
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources
from smft_jax.data.world import text as world_text
from smft_jax.data.world import world


@dataclasses.dataclass(frozen=True, kw_only=True)
class PeopleConfig(real_text.SourcesConfig):
  """Invented people, streamed into a pretrained model.

  Attributes:
    kind: 'people', the kind of data.
    num_new: People to teach, one document each, with six facts a person.

  Raises:
    UserError: A value is out of range.
  """

  general = True  # for a base that knows the world

  kind: Literal['people'] = 'people'
  num_new: int = 12

  def __post_init__(self) -> None:
    super().__post_init__()
    schema.at_least(0, self, 'num_new')


def make_task(config: PeopleConfig) -> task.Task:
  """Makes a task with a document for each new person.

  Besides the held-out sets of `background.base_task` it has the texts
  'target_statements_unseen': statements on the people in held-out phrasings.

  Raises:
    UserError: Data of `data_dir` is missing or broken.

  Example:
    >>> made = make_task(PeopleConfig(num_new=2))
    >>> len(made.documents), sorted(made.questions)
    (2, ['general_questions'])
  """
  problems = problems_lib.Problems(config.bad_input)
  base, _ = background.base_task(
    config, sources.Reader(problems, config.data_dir)
  )
  made = world.make_task(background.world_config(config.seed, config.num_new))
  unseen = 'target_statements_unseen'
  return dataclasses.replace(
    base,
    documents=tuple(_lesson(d, config.seed) for d in made.documents),
    texts={
      **base.texts,
      **{k: v for k, v in made.texts.items() if k == unseen},
    },
    counts={
      'documents': len(made.documents),
      'new_facts': made.counts['new_facts'],
      **base.counts,
      **problems.record(),
    },
  )


def _lesson(document: task.Document, seed: int) -> task.Document:
  """Adds training texts that ask for the same facts in other phrasings."""
  answers = {q.fact: q.answers[0] for q in document.questions}
  texts = (
    *document.augmentations,
    *(
      world_text.question_and_answer(asked)
      for fact, answer in answers.items()
      for asked in world_text.more_questions(
        fact.rpartition('/')[2], document.id, answer
      )
    ),
  )
  # Of the entities in such a text the first is the person.
  about = (dataclasses.replace(t, subject=t.entities[:1]) for t in texts)
  return dataclasses.replace(
    document,
    augmentations=examples.after_examples(
      tuple(about), seed=f'{seed}/{document.id}'
    ),
  )
