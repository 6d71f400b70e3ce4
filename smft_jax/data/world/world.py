"""An embedded world: people with facts, stated and asked in many phrasings.

There are three disjoint groups of people. The base is pretrained on the `known`
ones, the `new` ones are streamed later, and the `never_seen` ones occur in no
training text: their recall is chance. Some phrasings of statements and
questions are held out of everything that new people are trained on, so recall
in those phrasings cannot come from repeating a sentence. The base learns every
phrasing from the known people.

A world is a pure function of its config. Values are drawn independently and
uniformly, so chance is one over the number of values of an attribute.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np

from smft_jax import schema
from smft_jax.data import task
from smft_jax.data.world import text as world_text
from smft_jax.data.world import words as world_words

# Each use of randomness has its own stream, so changing one setting leaves the
# rest of the world alone.
_NAMES, _PHRASINGS, _KNOWN, _NEW, _NEVER_SEEN = range(5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldConfig:
  """Size and seed of a world.

  Attributes:
    kind: 'world', the kind of data.
    seed: Seed of everything in the world.
    num_known: People in the pretraining texts.
    num_new: People streamed later, one document each.
    num_never_seen: People who are only asked about.
    attributes: Attributes that every person has a value of.
    paraphrases: Statements of a fact, each phrased differently.
    unseen_paraphrases: Statements of a fact held out of training on new people.
    question_phrasings: Phrasings of the question for a fact.
    unseen_question_phrasings: Phrasings held out of training on new people.
    general_sentences: Pretraining sentences that are not about people.
    general_test_sentences: Further such sentences, held out.

  Raises:
    UserError: A value is out of range; the message names it and the range.
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
    schema.at_least(1, self, 'num_known')
    schema.at_least(0, self, 'seed', 'num_new', 'num_never_seen')
    schema.at_least(0, self, 'unseen_paraphrases', 'unseen_question_phrasings')
    schema.at_least(0, self, 'general_sentences', 'general_test_sentences')
    if not self.attributes:
      raise schema.UserError('attributes must name at least one attribute')
    for attribute in self.attributes:
      schema.one_of('attributes', attribute, world_words.VALUES)
    if len(set(self.attributes)) < len(self.attributes):
      raise schema.UserError(f'attributes repeats a name: {self.attributes}')
    self._check_phrasings('paraphrases', world_words.STATEMENTS)
    self._check_phrasings('question_phrasings', world_words.QUESTIONS)
    # Every word of a name occurs in the name of a known person.
    most = min(self.num_known, len(world_words.FIRST_NAMES)) * min(
      self.num_known, len(world_words.LAST_NAMES)
    )
    people = self.num_known + self.num_new + self.num_never_seen
    if people > most:
      raise schema.UserError(
        f'num_known + num_new + num_never_seen is {people}, more than the'
        f' {most} different names possible with num_known={self.num_known}'
      )

  def _check_phrasings(self, name: str, templates) -> None:
    most = min(len(templates[attribute]) for attribute in self.attributes)
    total, unseen = getattr(self, name), getattr(self, f'unseen_{name}')
    if not 1 <= total <= most:
      raise schema.UserError(f'{name} must be from 1 to {most}, not {total}')
    if unseen >= total:
      raise schema.UserError(
        f'unseen_{name} must be less than {name} ({total}), not {unseen}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Person:
  """A person's full name and the value of each attribute."""

  name: str
  facts: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
  """People, and the phrasings held out of training on the new ones.

  Names of phrasings look like 'field/statement/3' and 'field/question/0'.
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
  """Makes the task of a world.

  Returns:
    A task with one document per new person, in the order of the stream;
    question sets 'known' and 'never_seen' in every phrasing; and text sets
    'general_text' and 'target_statements_unseen' (the new people's statements
    in held-out phrasings). In every group a question is `seen` if new people
    are trained on its phrasing, which makes the groups comparable.

  Example:
    >>> made = make_task(WorldConfig(num_known=11, num_new=2))
    >>> len(made.documents), sorted(made.questions)
    (2, ['known', 'never_seen'])
  """
  world = make_world(config)
  general = world_text.general_sentences(
    config.general_sentences + config.general_test_sentences, config.seed
  )
  unseen = world.unseen_phrasings
  documents = []
  unseen_statements: list[task.Text] = []
  for person in world.new:
    seen_statements: list[task.Text] = []
    for name, text in _statements(person, config).items():
      (unseen_statements if name in unseen else seen_statements).append(text)
    documents.append(
      task.Document(
        id=person.name,
        augmentations=_training_texts(person, config, unseen),
        questions=_questions(person, config, unseen),
        texts=tuple(seen_statements),
      )
    )
  pretraining = [
    text
    for person in world.known
    for text in _training_texts(person, config, frozenset())
  ]
  pretraining += general[: config.general_sentences]
  groups = {'known': world.known, 'never_seen': world.never_seen}
  questions = {
    name: tuple(q for p in people for q in _questions(p, config, unseen))
    for name, people in groups.items()
  }
  texts = {
    'general_text': general[config.general_sentences :],
    'target_statements_unseen': tuple(unseen_statements),
  }
  attributes = len(config.attributes)
  return task.Task(
    pretraining=tuple(pretraining),
    documents=tuple(documents),
    questions={name: group for name, group in questions.items() if group},
    texts={name: group for name, group in texts.items() if group},
    counts={
      'known_facts': len(world.known) * attributes,
      'new_facts': len(world.new) * attributes,
      'never_seen_facts': len(world.never_seen) * attributes,
      'documents': len(documents),
      'pretraining_texts': len(pretraining),
    },
  )


def _names(config: WorldConfig) -> list[str]:
  """Draws different names; known people have every first and last name."""
  rng = np.random.default_rng([config.seed, _NAMES])
  firsts = rng.permutation(world_words.FIRST_NAMES)[: config.num_known].tolist()
  lasts = rng.permutation(world_words.LAST_NAMES)[: config.num_known].tolist()
  # Shuffled pairs, after those that cover every first and last name.
  most = max(len(firsts), len(lasts))
  cover = [(i % len(firsts), i % len(lasts)) for i in range(most)]
  grid = rng.permutation(len(firsts) * len(lasts)).tolist()
  # A dict drops repeats and keeps the order.
  pairs = list(
    dict.fromkeys([*cover, *(divmod(pair, len(lasts)) for pair in grid)])
  )
  people = config.num_known + config.num_new + config.num_never_seen
  return [f'{firsts[i]} {lasts[j]}' for i, j in pairs[:people]]


def _people(
  names: list[str], config: WorldConfig, stream: int
) -> tuple[Person, ...]:
  rng = np.random.default_rng([config.seed, stream])
  values = {a: world_words.VALUES[a] for a in config.attributes}
  return tuple(
    Person(
      name=name,
      facts={a: found[rng.integers(len(found))] for a, found in values.items()},
    )
    for name in names
  )


def _unseen_phrasings(config: WorldConfig) -> frozenset[str]:
  """Draws the held-out phrasings, different ones for each seed."""
  rng = np.random.default_rng([config.seed, _PHRASINGS])
  kinds = (
    ('statement', config.paraphrases, config.unseen_paraphrases),
    ('question', config.question_phrasings, config.unseen_question_phrasings),
  )
  return frozenset(
    f'{attribute}/{kind}/{i}'
    for attribute in config.attributes
    for kind, total, count in kinds
    for i in rng.permutation(total)[:count].tolist()
  )


def _statements(person: Person, config: WorldConfig) -> dict[str, task.Text]:
  """Makes every statement about a person, by the name of its phrasing."""
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
  """Makes statements and answered questions in all seen phrasings."""
  statements = _statements(person, config)
  return tuple(
    text for name, text in statements.items() if name not in unseen_phrasings
  ) + tuple(
    world_text.question_and_answer(question)
    for question in _questions(person, config, unseen_phrasings)
    if question.seen
  )
