"""The embedded world: groups, held-out phrasings, spans, general text."""

import collections
import dataclasses
import itertools
import re

import pytest

from smft_jax.data import tokenizers
from smft_jax.data.world import words as world_words
from smft_jax.data.world import world


@pytest.fixture(scope='module')
def config():
  return world.WorldConfig(
    seed=3,
    num_known=31,
    num_new=7,
    num_never_seen=5,
    general_sentences=211,
    general_test_sentences=53,
  )


@pytest.fixture(scope='module')
def made(config):
  return world.make_task(config)


@pytest.fixture(scope='module')
def people(config):
  return world.make_world(config)


def _training_texts(made):
  yield from made.pretraining
  for document in made.documents:
    yield from document.augmentations


def _phrasing(text, person_name, values):
  """A sentence with its name and value taken out."""
  for value in sorted(values, key=len, reverse=True):
    text = text.replace(value, '{value}')
  return text.replace(person_name, '{name}')


def test_world_is_a_function_of_its_config(config, made):
  assert world.make_task(config) == made
  other = world.make_task(dataclasses.replace(config, seed=4))
  assert {d.id for d in other.documents} != {d.id for d in made.documents}


def test_a_setting_of_one_group_leaves_the_others_alone(config, people):
  more = world.make_world(dataclasses.replace(config, num_new=11))
  assert more.known == people.known
  assert more.new[:7] == people.new
  assert more.unseen_phrasings == people.unseen_phrasings


@pytest.mark.parametrize('sizes', [(31, 7, 5), (5, 13, 7)])  # 25: all names
def test_groups_have_the_asked_sizes_and_share_no_name(sizes):
  names = ('num_known', 'num_new', 'num_never_seen')
  made = world.make_world(
    world.WorldConfig(**dict(zip(names, sizes, strict=True)))
  )
  groups = (made.known, made.new, made.never_seen)
  assert tuple(len(group) for group in groups) == sizes
  assert len({p.name for group in groups for p in group}) == sum(sizes)


@pytest.mark.parametrize('num_known', [7, 89, 300])
def test_every_part_of_a_name_is_among_the_known(num_known):
  made = world.make_world(
    world.WorldConfig(num_known=num_known, num_new=17, num_never_seen=13)
  )
  firsts, lasts = zip(*(p.name.split() for p in made.known), strict=True)
  for person in made.new + made.never_seen:
    first, last = person.name.split()
    assert first in firsts
    assert last in lasts


def test_never_seen_people_are_in_no_training_text(made, people):
  texts = [text.text for text in _training_texts(made)]
  for person in people.never_seen:
    assert not any(person.name in text for text in texts)


def test_new_people_are_in_their_own_document_only(made, people):
  pretraining = ' '.join(text.text for text in made.pretraining)
  for person, document in zip(people.new, made.documents, strict=True):
    assert person.name == document.id
    assert person.name not in pretraining
    for other in made.documents:
      mentions = [person.name in t.text for t in other.augmentations]
      assert all(mentions) if other is document else not any(mentions)


def test_held_out_phrasings_are_in_no_augmentation(config, made, people):
  by_kind = collections.Counter(
    tuple(name.split('/')[:2]) for name in people.unseen_phrasings
  )
  assert by_kind == {
    (attribute, kind): count
    for attribute in config.attributes
    for kind, count in (('statement', 2), ('question', 1))
  }
  unseen = made.texts['target_statements_unseen']
  assert len(unseen) == 7 * 6 * 2
  all_values = list(itertools.chain(*world_words.VALUES.values()))
  for person, document in zip(people.new, made.documents, strict=True):
    trained = {
      _phrasing(text.text, person.name, all_values)
      for text in document.augmentations
    }
    assert len(trained) == len(document.augmentations) == 6 * (6 + 3)
    held_out = {
      _phrasing(text.text, person.name, all_values)
      for text in unseen
      if person.name in text.text
    }
    assert len(held_out) == 12
    assert not trained & held_out
    for question in document.questions:
      shown = any(
        text.text.startswith(question.prompt) for text in document.augmentations
      )
      assert shown == question.seen


def test_every_fact_is_stated_and_asked(made, people):
  for person, document in zip(people.new, made.documents, strict=True):
    facts = collections.Counter(q.fact for q in document.questions)
    assert facts == {f'{person.name}/{a}': 4 for a in person.facts}
    seen = collections.Counter(q.fact for q in document.questions if q.seen)
    assert set(seen.values()) == {3}
    for question in document.questions:
      value = person.facts[question.fact.split('/')[1]]
      assert question.answers == (value,)
    answers = collections.Counter(
      text.text[slice(*text.answer)] for text in document.augmentations
    )
    assert answers == dict.fromkeys(person.facts.values(), 9)


def test_known_people_are_pretrained_on_every_phrasing(made, people):
  by_name = collections.defaultdict(set)
  for text in made.pretraining:
    if text.entities:
      by_name[text.text[slice(*text.entities[0])]].add(text.text)
  for person in people.known:
    assert len(by_name[person.name]) == 6 * (8 + 4)
  trained = {text.text for text in made.pretraining}
  for question in made.questions['known']:
    assert question.full_text().text in trained


def test_spans_mark_the_name_and_the_value(made, people):
  facts = {p.name: p.facts for p in people.known + people.new}
  marked = [text for text in _training_texts(made) if text.entities]
  assert len(marked) == 31 * 72 + 7 * 54
  for text in marked + list(made.texts['target_statements_unseen']):
    name, value = (text.text[slice(*span)] for span in text.entities)
    assert value in facts[name].values()
    assert text.answer == text.entities[1]
    assert text.entities[0][1] < text.answer[0]
    # What follows the value could give it away only to a non-causal model.
    assert text.text[text.answer[1] :] in ('', '.')


def test_values_are_drawn_evenly_and_independently():
  people = world.make_world(
    world.WorldConfig(num_known=3600, num_new=0, num_never_seen=0)
  ).known
  for attribute, values in world_words.VALUES.items():
    counts = collections.Counter(p.facts[attribute] for p in people)
    # 100 expected of each, standard deviation 10.
    assert set(counts) == set(values)
    assert min(counts.values()) > 55
    assert max(counts.values()) < 145
  for one, other in itertools.combinations(world_words.VALUES, 2):
    pairs = collections.Counter((p.facts[one], p.facts[other]) for p in people)
    # 2.8 expected of each pair: 14 or more is one in a million.
    assert max(pairs.values()) < 15


def test_general_text_is_new_and_not_about_people(made):
  pretraining = {t.text for t in made.pretraining if not t.entities}
  test = {t.text for t in made.texts['general_text']}
  assert (len(pretraining), len(test)) == (211, 53)
  assert not pretraining & test
  names = {*world_words.FIRST_NAMES, *world_words.LAST_NAMES}
  for text in pretraining | test:
    assert not names & set(re.findall(r'\w+', text))
    assert '{' not in text


def test_default_sizes_are_those_of_the_goal():
  made = world.make_task(world.WorldConfig())
  assert made.counts['known_facts'] >= 1000
  assert made.counts['new_facts'] >= 200
  assert made.counts['documents'] == len(made.documents) >= 40
  assert made.counts['pretraining_texts'] == len(made.pretraining)
  assert len(made.questions['known']) == 4 * made.counts['known_facts']
  assert len(made.questions['never_seen']) == (
    4 * made.counts['never_seen_facts']
  )
  tokenizer = tokenizers.train_word_level(made.vocabulary_texts())
  # A prime stride, so that every template and group has its turn.
  texts = made.vocabulary_texts()[::47]
  encoded = tokenizer.encode_batch_with_offsets(texts)
  assert max(len(ids) for ids, _ in encoded) <= 40
  assert [tokenizer.decode(ids) for ids, _ in encoded] == list(texts)


def test_empty_groups_leave_no_empty_sets():
  none = ('num_new', 'num_never_seen', 'general_sentences')
  empty = dict.fromkeys([*none, 'general_test_sentences'], 0)
  made = world.make_task(world.WorldConfig(num_known=3, **empty))
  assert made.documents == ()
  assert set(made.questions) == {'known'}
  assert made.texts == {}


def test_fewer_attributes_and_phrasings():
  made = world.make_task(
    world.WorldConfig(
      num_known=11,
      num_new=2,
      attributes=('field', 'employer'),
      paraphrases=3,
      unseen_paraphrases=0,
      question_phrasings=2,
    )
  )
  assert len(made.documents[0].augmentations) == 2 * (3 + 1)
  assert len(made.documents[0].questions) == 2 * 2
  assert 'target_statements_unseen' not in made.texts


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'seed': -1}, 'seed must be at least 0, not -1'),
    ({'num_known': 0}, 'num_known must be at least 1, not 0'),
    ({'num_new': -2}, 'num_new must be at least 0, not -2'),
    ({'attributes': ()}, 'at least one attribute'),
    ({'attributes': ('birthplaces',)}, "did you mean 'birthplace'"),
    ({'attributes': ('field', 'field')}, 'repeats'),
    ({'paraphrases': 9}, 'paraphrases must be from 1 to 8, not 9'),
    ({'question_phrasings': 0}, 'from 1 to 4, not 0'),
    ({'unseen_paraphrases': 8}, r'less than paraphrases \(8\), not 8'),
    ({'unseen_question_phrasings': 5}, 'less than question_phrasings'),
    ({'num_known': 3, 'num_new': 5}, 'the 9 different names'),
    ({'num_known': 10**5}, 'is 100100, more than'),
  ],
)
def test_impossible_worlds_are_refused_in_one_line(settings, message):
  with pytest.raises(ValueError, match=message) as caught:
    world.WorldConfig(**settings)
  assert '\n' not in str(caught.value)


def test_attributes_may_come_as_a_list():
  config = world.WorldConfig(attributes=['field'])
  assert config.attributes == ('field',)
  assert hash(config) == hash(world.WorldConfig(attributes=('field',)))
