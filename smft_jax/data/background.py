"""Background and held-out sets for a base that knows the world.

A pretrained model is not trained on the background; its memory is fitted to it,
and document frequencies are counted over it. Texts in the style of what is
taught matter most there: without statements and questions about other people,
the templates of statements would rank first, not the names.

What ships with the package: invented people, sentences, prose and some
questions about the real world for the background; other prose and questions
held out. Data sets of config.data.data_dir are added if it is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smft_jax import schema
from smft_jax.data import prepared
from smft_jax.data import real_text
from smft_jax.data import task
from smft_jax.data.general import prose
from smft_jax.data.general import questions as general_questions
from smft_jax.data.sources import sources
from smft_jax.data.world import world

# About 50,000 tokens in all: 2,400 + 800 short texts and the prose.
_PEOPLE, _TEXTS_OF_A_PERSON, _SENTENCES = 200, 12, 800
# Most entries of each further source.
_MOST_ENTRIES = 1500
# Shorter paragraphs are headings.
_LEAST_CHARS = 200


def base_task(
  config: real_text.SourcesConfig, reader: sources.Reader
) -> tuple[task.Task, frozenset[str]]:
  """Makes a task without documents: a background and held-out sets.

  Args:
    config: The sources; data sets count only with a `data_dir`.
    reader: Reads them.

  Returns:
    The task, and the prompts of the background's questions. Held-out sets are
    the questions 'general_questions', the texts 'general_prose', and those of
    the sources, named after them. A source of running text gives paragraphs.

  Raises:
    UserError: Data is missing or broken.
  """
  if prepared.is_folder(config.running_text):
    raise schema.UserError(
      f'config.data.running_text = {config.running_text!r} has prepared rows,'
      ' and this background takes a few paragraphs: give the folder as'
      ' config.background.corpus'
    )

  def given(names: Sequence[str]) -> list[str]:
    return [
      name
      for name in names
      if name and (config.data_dir or not sources.is_data_set(name))
    ]

  paragraphs = [
    task.Text(text=paragraph.strip())
    for name in given([config.running_text])
    for article in reader.texts(name)
    for paragraph in article.text.split('\n')
    if len(paragraph) >= _LEAST_CHARS
  ]
  asked = [
    *general_questions.background(),
    *(
      real_text.question(question, seen=True)
      for name in given(config.known_questions)
      for question in real_text.evenly(reader.questions(name), _MOST_ENTRIES)
    ),
  ]
  prompts = frozenset(question.prompt for question in asked)
  people = _people(config.seed)
  texts = {'general_prose': prose.held_out()}
  for name in given([config.held_out_text]):
    texts[real_text.set_name(name)] = tuple(
      task.Text(text=article.text) for article in reader.texts(name)
    )
  made = task.Task(
    pretraining=(
      *people,
      *prose.background(),
      *real_text.evenly(paragraphs, _MOST_ENTRIES),
      *(question.full_text() for question in asked),
    ),
    documents=(),
    questions={
      'general_questions': general_questions.held_out(),
      **real_text.held_out_questions(
        given(config.held_out_questions), reader, prompts
      ),
    },
    texts=texts,
    choices={
      real_text.set_name(name): tuple(reader.choices(name))
      for name in given(config.held_out_choices)
    },
    counts={
      'background_invented': len(people),
      'background_paragraphs': len(prose.background())
      + min(len(paragraphs), _MOST_ENTRIES),
      'background_questions': len(asked),
    },
  )
  return made, prompts


def world_config(seed: int, num_new: int = 0) -> world.WorldConfig:
  """Returns the invented world: people of the background, and others to teach.

  The people of the background do not depend on the number of others.
  """
  return world.WorldConfig(
    seed=seed,
    num_known=_PEOPLE,
    num_new=num_new,
    num_never_seen=0,
    general_sentences=_SENTENCES,
  )


def _people(seed: int) -> list[task.Text]:
  """Makes texts about invented people, and sentences about other things."""
  made = world.make_task(world_config(seed)).pretraining
  about_people = made[:-_SENTENCES]
  rng = np.random.default_rng(seed)
  chosen = rng.choice(
    len(about_people), _PEOPLE * _TEXTS_OF_A_PERSON, replace=False
  )
  return [*(about_people[i] for i in np.sort(chosen)), *made[-_SENTENCES:]]
