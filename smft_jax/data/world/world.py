"""An embedded world: people with facts, told and asked in many phrasings.

Three disjoint groups of people: `known` ones are pretrained on, `new` ones are
streamed later, and `never_seen` ones (the control) occur in no training text:
what a model recalls of them is chance. Some phrasings of statements and of
questions are held out of all that the new people are trained on, so recall in
those phrasings cannot come from repeating a sentence. The base model learns
every phrasing, on the known people.

All is a pure function of the config. Values are drawn independently and
uniformly, so chance is one over the number of values of an attribute.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from typing import Literal

import numpy as np

from smft_jax.data import task
from smft_jax.data.world import text as world_text
from smft_jax.data.world import words as world_words

# Each use of randomness has its own stream, so that a change of one setting
# leaves the rest of the world as it was.
_NAMES, _PHRASINGS, _KNOWN, _NEW, _NEVER_SEEN = range(5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldConfig:
  """Size and seed of a world.

  Attributes:
    kind: Tells the sources of data apart in a config.
    seed: What the world is made from.
    num_known: People in the pretraining texts.
    num_new: People streamed after it, one document each.
    num_never_seen: People who are only asked about.
    attributes: What every person has a value of.
    paraphrases: Statements of a fact, each phrased differently.
    unseen_paraphrases: How many of them the training of new people lacks.
    question_phrasings: Phrasings of the question for a fact.
    unseen_question_phrasings: How many of them the training of new people
      lacks.
    general_sentences: Pretraining sentences that are not about people.
    general_test_sentences: More of them, held out.

  Raises:
    ValueError: A value is out of range; the message says which and what fits.
  """

  kind: Literal['world'] = 'world'
  seed: int = 0
  num_known: int = 300
  num_new: int = 50
  num_never_seen: int = 50
  attributes: tuple[str, ...] = tuple(world_words.VALUES)
  paraphrases: int = 8
  unseen_paraphrases: int = 2
  question_phrasings: int = 4
  unseen_question_phrasings: int = 1
  general_sentences: int = 4000
  general_test_sentences: int = 500

  def __post_init__(self) -> None:
    object.__setattr__(self, 'attributes', tuple(self.attributes))
    for name, least in (
      ('seed', 0),
      ('num_known', 1),
      ('num_new', 0),
      ('num_never_seen', 0),
      ('unseen_paraphrases', 0),
      ('unseen_question_phrasings', 0),
      ('general_sentences', 0),
      ('general_test_sentences', 0),
    ):
      if getattr(self, name) < least:
        raise ValueError(
          f'{name} must be at least {least}, not {getattr(self, name)}'
        )
    if not self.attributes:
      raise ValueError('attributes must name at least one attribute')
    for attribute in self.attributes:
      if attribute not in world_words.VALUES:
        near = difflib.get_close_matches(attribute, world_words.VALUES, 1, 0.0)
        raise ValueError(
          f'unknown attribute {attribute!r}; the nearest is {near[0]!r}'
        )
    if len(set(self.attributes)) < len(self.attributes):
      raise ValueError(f'attributes repeats a name: {self.attributes}')
    for total, unseen, templates in (
      ('paraphrases', 'unseen_paraphrases', world_words.STATEMENTS),
      (
        'question_phrasings',
        'unseen_question_phrasings',
        world_words.QUESTIONS,
      ),
    ):
      most = min(len(templates[a]) for a in self.attributes)
      if not 1 <= getattr(self, total) <= most:
        raise ValueError(
          f'{total} must be from 1 to {most}, not {getattr(self, total)}'
        )
      if getattr(self, unseen) >= getattr(self, total):
        raise ValueError(
          f'{unseen} must be less than {total} ({getattr(self, total)}), '
          f'not {getattr(self, unseen)}'
        )
    # Other people's names are made of words that known people have too.
    most = min(self.num_known, len(world_words.FIRST_NAMES)) * min(
      self.num_known, len(world_words.LAST_NAMES)
    )
    people = self.num_known + self.num_new + self.num_never_seen
    if people > most:
      raise ValueError(
        f'num_known + num_new + num_never_seen is {people}, more than the '
        f'{most} different names there are with num_known={self.num_known}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Person:
  """A person's full name and the value of each attribute."""

  name: str
  facts: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
  """The people, and the phrasings held out of the new people's training.

  Phrasings have names such as 'field/statement/3' and 'field/question/0'.
  """

  known: tuple[Person, ...]
  new: tuple[Person, ...]
  never_seen: tuple[Person, ...]
  unseen_phrasings: frozenset[str]


def make_world(config: WorldConfig) -> World:
  """Draws names, facts and the held-out phrasings.

  Example:
    >>> world = make_world(WorldConfig(num_known=11, num_new=2))
    >>> len(world.new), sorted(world.new[0].facts)[:2]
    (2, ['birthplace', 'employer'])
  """
  names = _names(config)
  new = config.num_known + config.num_new
  return World(
    known=_people(names[: config.num_known], config, _KNOWN),
    new=_people(names[config.num_known : new], config, _NEW),
    never_seen=_people(names[new:], config, _NEVER_SEEN),
    unseen_phrasings=_unseen_phrasings(config),
  )


def make_task(config: WorldConfig) -> task.Task:
  """The world as a task.

  Returns:
    A task with one document per new person, in the order of the stream;
    question sets 'known' and 'never_seen' in every phrasing; and text sets
    'general_text' and 'target_statements_unseen' (the new people's statements
    in held-out phrasings). A question is `seen` when new people are trained on
    its phrasing, in every group, so that groups compare like with like.

  Example:
    >>> made = make_task(WorldConfig(num_known=11, num_new=2))
    >>> len(made.documents), sorted(made.questions)
    (2, ['known', 'never_seen'])
  """
  world = make_world(config)
  general = world_text.general_sentences(
    config.general_sentences + config.general_test_sentences, config.seed
  )
  documents = []
  unseen_statements: list[task.Text] = []
  for person in world.new:
    statements = _statements(person, config)
    unseen_statements += (
      text
      for name, text in statements.items()
      if name in world.unseen_phrasings
    )
    documents.append(
      task.Document(
        id=person.name,
        augmentations=_training_texts(person, config, world.unseen_phrasings),
        questions=_questions(person, config, world.unseen_phrasings),
        texts=tuple(
          text
          for name, text in statements.items()
          if name not in world.unseen_phrasings
        ),
      )
    )
  pretraining = [
    text
    for person in world.known
    for text in _training_texts(person, config, frozenset())
  ]
  pretraining += general[: config.general_sentences]
  questions = {
    name: tuple(
      question
      for person in people
      for question in _questions(person, config, world.unseen_phrasings)
    )
    for name, people in (
      ('known', world.known),
      ('never_seen', world.never_seen),
    )
  }
  texts = {
    'general_text': general[config.general_sentences :],
    'target_statements_unseen': tuple(unseen_statements),
  }
  facts = len(config.attributes)
  return task.Task(
    pretraining=tuple(pretraining),
    documents=tuple(documents),
    questions={name: group for name, group in questions.items() if group},
    texts={name: group for name, group in texts.items() if group},
    counts={
      'known_facts': len(world.known) * facts,
      'new_facts': len(world.new) * facts,
      'never_seen_facts': len(world.never_seen) * facts,
      'documents': len(documents),
      'pretraining_texts': len(pretraining),
    },
  )


def chance_recall(config: WorldConfig) -> float:
  """Expected recall of a guesser who knows the attribute but not the person.

  Example:
    >>> round(chance_recall(WorldConfig()), 3)
    0.028
  """
  return math.fsum(
    1 / len(world_words.VALUES[a]) for a in config.attributes
  ) / len(config.attributes)


def _names(config: WorldConfig) -> list[str]:
  """Different full names; every first and last name is among the known."""
  rng = np.random.default_rng([config.seed, _NAMES])
  firsts = rng.permutation(world_words.FIRST_NAMES)[: config.num_known].tolist()
  lasts = rng.permutation(world_words.LAST_NAMES)[: config.num_known].tolist()
  # Shuffled pairs, those first that cover every first and last name.
  cover = [
    (i % len(firsts), i % len(lasts))
    for i in range(max(len(firsts), len(lasts)))
  ]
  covered = set(cover)
  grid = rng.permutation(len(firsts) * len(lasts))
  rest = [divmod(pair, len(lasts)) for pair in grid.tolist()]
  pairs = cover + [pair for pair in rest if pair not in covered]
  people = config.num_known + config.num_new + config.num_never_seen
  return [f'{firsts[i]} {lasts[j]}' for i, j in pairs[:people]]


def _people(
  names: list[str], config: WorldConfig, stream: int
) -> tuple[Person, ...]:
  rng = np.random.default_rng([config.seed, stream])
  people = []
  for name in names:
    facts = {}
    for attribute in config.attributes:
      values = world_words.VALUES[attribute]
      facts[attribute] = values[rng.integers(len(values))]
    people.append(Person(name=name, facts=facts))
  return tuple(people)


def _unseen_phrasings(config: WorldConfig) -> frozenset[str]:
  """Chosen anew by each seed, so that results do not hang on one choice."""
  rng = np.random.default_rng([config.seed, _PHRASINGS])
  unseen = []
  for attribute in config.attributes:
    for kind, total, count in (
      ('statement', config.paraphrases, config.unseen_paraphrases),
      (
        'question',
        config.question_phrasings,
        config.unseen_question_phrasings,
      ),
    ):
      for i in rng.permutation(total)[:count].tolist():
        unseen.append(f'{attribute}/{kind}/{i}')
  return frozenset(unseen)


def _statements(person: Person, config: WorldConfig) -> dict[str, task.Text]:
  """Every statement about a person, by the name of its phrasing."""
  return {
    f'{attribute}/statement/{i}': world_text.statement(
      attribute, i, person.name, person.facts[attribute]
    )
    for attribute in config.attributes
    for i in range(config.paraphrases)
  }


def _questions(
  person: Person, config: WorldConfig, unseen_phrasings: frozenset[str]
) -> tuple[task.Question, ...]:
  return tuple(
    world_text.question(
      attribute,
      i,
      person.name,
      person.facts[attribute],
      seen=f'{attribute}/question/{i}' not in unseen_phrasings,
    )
    for attribute in config.attributes
    for i in range(config.question_phrasings)
  )


def _training_texts(
  person: Person, config: WorldConfig, unseen_phrasings: frozenset[str]
) -> tuple[task.Text, ...]:
  """Statements and questions with answers, in all but the unseen phrasings."""
  statements = _statements(person, config)
  return tuple(
    text for name, text in statements.items() if name not in unseen_phrasings
  ) + tuple(
    world_text.question_and_answer(question)
    for question in _questions(person, config, unseen_phrasings)
    if question.seen
  )
