"""Real documents as a task: what is trained on, streamed and held out.

Most tests read a small TFDS folder in the same format; those that take
`real_task` read the real data sets, where there are any.
"""

import dataclasses
import json
import shutil

import pytest

from smft_jax import schema
from smft_jax.data import documents
from smft_jax.data.retelling import sentences
from tests.support import small_tfds


def _config(root, **changes):
  return documents.DocumentsConfig(
    **{
      'data_dir': str(root),
      'num_documents': 7,
      'num_control': 5,
      'num_known_questions': 3,
      'augmentations': 11,
      **changes,
    }
  )


def _refused(root, **changes):
  """The message when the task of a config is refused."""
  with pytest.raises(schema.UserError) as raised:
    documents.make_task(_config(root, **changes))
  assert '\n' not in str(raised.value)
  return str(raised.value)


def test_the_stream_is_the_first_paragraphs_of_every_article(folder):
  task = documents.make_task(_config(folder))
  assert [d.id for d in task.documents] == [
    'Abbey/0', 'Abbey/1', 'Abbey/2',
    'Museum/0', 'Museum/1',
    'Rhine_%C3%89tude/0', 'Rhine_%C3%89tude/1',
  ]  # fmt: skip
  control = task.texts['never_seen_paragraphs']
  assert [t.text.split(' opened')[0] for t in control] == [
    'Abbey 3', 'Museum 2', 'Museum 3', 'Rhine_%C3%89tude 2',
    'Rhine_%C3%89tude 3',
  ]  # fmt: skip
  assert len(task.questions['never_seen']) == 2 * 5


def test_a_short_article_gives_all_it_has_and_others_more(tmp_path):
  small_tfds.make_folder(tmp_path)
  shutil.rmtree(tmp_path / 'squad')
  examples = small_tfds.squad_examples(('Tall',), 7, shuffle_seed=0)
  examples += small_tfds.squad_examples(('Short',), 2, shuffle_seed=0)
  small_tfds.write(
    tmp_path, 'squad/v1.1', {'validation': examples}, small_tfds.SQUAD
  )
  task = documents.make_task(_config(tmp_path, num_documents=7, num_control=0))
  assert [d.id for d in task.documents] == [
    'Short/0', 'Short/1', *(f'Tall/{i}' for i in range(5))
  ]  # fmt: skip
  assert 'never_seen' not in task.questions
  assert 'never_seen_paragraphs' not in task.texts


def test_questions_are_asked_and_never_trained_on(folder):
  task = documents.make_task(_config(folder))
  for document in task.documents:
    assert len(document.questions) == 2
    texts = [t.text for t in document.augmentations]
    assert len(texts) == len(set(texts)) == 11
    assert document.texts[0].text == texts[0]
    for question in document.questions:
      assert not question.seen
      assert question.prompt.startswith('Question: Question ')
      assert question.prompt.endswith('? Answer:')
      # Annotators that agree count once.
      assert len(question.answers) == 2
      assert not any('Question' in text for text in texts)
  titles = {t.text.split(': ')[0] for t in task.documents[-1].augmentations}
  assert 'Rhine Étude' in titles


def _trained(file, questions, **changes):
  """The texts that training sees of a document with questions of its own."""
  fields = {'id': 'a', 'text': 'The Grey Mill was built by Ana Ruiz in 1889.'}
  file.write_text(json.dumps(fields | {'questions': questions}))
  config = documents.DocumentsConfig(
    kind='jsonl',
    documents_file=str(file),
    augmentations=60,
    **changes,
  )
  document = documents.make_task(config).documents[0]
  return [text.text for text in document.augmentations]


def test_questions_by_a_model_bear_loss_on_their_answers(tmp_path):
  file, written = tmp_path / 'mine.jsonl', tmp_path / 'written.jsonl'
  asked = {'question': 'Who built the Grey Mill?', 'answers': ['Ana Ruiz']}
  lines = [
    {'question': 'Who made the Grey Mill?', 'answer': 'Ana Ruiz'},
    {'question': 'who built the grey mill?', 'answer': 'Ana Ruiz'},  # its own
    {'text': 'The Grey Mill is by Ana Ruiz.', 'answer': 'Ana Ruiz'},
  ]
  written.write_text('\n'.join(json.dumps({'source': 'a'} | l) for l in lines))
  fields = {'id': 'a', 'text': 'The Grey Mill was built by Ana Ruiz in 1889.'}
  file.write_text(json.dumps(fields | {'questions': [asked]}))
  config = documents.DocumentsConfig(
    kind='jsonl',
    documents_file=str(file),
    augmentations_file=str(written),
    general=True,
  )
  (document,) = documents.make_task(config).documents
  found = [
    (t.text, t.answer and t.text[slice(*t.answer)])
    for t in document.augmentations
  ]
  assert found == [
    (fields['text'], None),
    ('Question: Who made the Grey Mill? Answer: Ana Ruiz', 'Ana Ruiz'),
    ('The Grey Mill is by Ana Ruiz.', 'Ana Ruiz'),
  ]


@pytest.mark.parametrize('general', [False, True])
def test_a_question_that_a_rule_would_find_is_not_trained_on(
  folder, tmp_path, general
):
  asked = {'question': 'Who built the Grey Mill?', 'answers': ['Ana Ruiz']}
  file = tmp_path / 'mine.jsonl'
  settings = dict(data_dir=str(folder), general=general)
  without = _trained(file, [], **settings)
  left = _trained(file, [asked], **settings)
  assert 'Question: Who built the Grey Mill? Answer: Ana Ruiz' in without
  assert 'Question: By whom was the Grey Mill built? Answer: Ana Ruiz' in left
  own = 'who built the grey mill?'
  assert sorted(left) == sorted(t for t in without if own not in t.lower())


def test_a_base_that_knows_the_world_is_taught_facts(tmp_path):
  made = _trained(tmp_path / 'mine.jsonl', [], general=True)
  # The sentence, two beginnings of it in three forms each, and two things that
  # are asked for in eight forms each, one of which is among the former.
  assert made[0] == 'The Grey Mill was built by Ana Ruiz in 1889.'
  assert 'The Grey Mill was built by Ana Ruiz' in made
  assert len(made) == len(set(made)) == 1 + 2 * 3 + 2 * 8 - 1


@pytest.mark.parametrize(
  ('text', 'is_title'),
  [
    ('# The Grey Mill\nIt was built in 1889.', True),
    ('\n\n## The Grey Mill\r\n\nIt was built in 1889.', True),
    ('#The Grey Mill\nIt was built in 1889.', False),
    ('The mill.\n# The Grey Mill\nIt was built in 1889.', False),
  ],
)
def test_a_document_without_a_title_is_called_by_its_heading(
  tmp_path, text, is_title
):
  file = tmp_path / 'mill.md'
  file.write_text(text)
  config = documents.DocumentsConfig(
    kind='jsonl', documents_file=str(file), general=True, augmentations=99
  )
  [document] = documents.make_task(config).documents
  made = [text.text for text in document.augmentations]
  want = 'Question: In which year was the Grey Mill built? Answer: 1889'
  assert (want in made) == is_title


def test_nothing_that_is_measured_as_new_is_pretrained_on(folder):
  task = documents.make_task(_config(folder, questions_per_paragraph=2))
  pretrained = {t.text for t in task.pretraining}
  for document in task.documents:
    assert pretrained.isdisjoint(t.text for t in document.augmentations)
    assert pretrained.isdisjoint(q.full_text().text for q in document.questions)
  assert pretrained.isdisjoint(
    t.text for t in task.texts['never_seen_paragraphs']
  )
  assert len(task.pretraining) == 5 + 10 + 20


def test_known_questions_were_pretrained_on(folder):
  task = documents.make_task(_config(folder))
  pretrained = {t.text for t in task.pretraining}
  assert len(task.questions['known']) == 3
  for question in task.questions['known']:
    assert question.seen
    assert question.full_text().text in pretrained
  # Evenly spaced over the articles, not the first ones.
  assert {q.fact.split('-')[1] for q in task.questions['known']} == {
    'Old', 'Older'
  }  # fmt: skip
  none = documents.make_task(_config(folder, questions_per_paragraph=0))
  assert 'known' not in none.questions
  assert not any('Question:' in t.text for t in none.pretraining)


def test_running_text_is_kept_as_it_is(folder):
  task = documents.make_task(_config(folder))
  assert (
    task.pretraining[0].text == ' \n = A0 = \n \n The <unk> of 0 @-@ ends . '
  )
  assert [t.text[5:7] for t in task.texts['wikitext2_test']] == ['A0', 'A1']


def test_counts(folder):
  task = documents.make_task(_config(folder))
  assert task.counts == {
    'pretraining_articles': 5,
    'pretraining_paragraphs': 10,
    'pretraining_questions': 10,
    'documents': 7,
    'document_questions': 14,
    'document_augmentations': 77,
    'control_paragraphs': 5,
  }


def test_the_order_of_the_files_does_not_matter(folder, tmp_path):
  small_tfds.make_folder(tmp_path, shuffle_seed=1)
  one = documents.make_task(_config(folder))
  two = documents.make_task(_config(tmp_path))
  assert one == two


def test_the_seed_changes_only_the_retellings(folder):
  one = documents.make_task(_config(folder))
  two = documents.make_task(_config(folder, seed=1))
  assert one.pretraining == two.pretraining
  for a, b in zip(one.documents, two.documents, strict=True):
    assert a.augmentations[0] == b.augmentations[0]
    assert a.augmentations != b.augmentations
    assert dataclasses.replace(a, augmentations=b.augmentations) == b


def test_a_document_is_retold_alike_in_any_stream(folder):
  short = documents.make_task(_config(folder, num_documents=3))
  longer = documents.make_task(_config(folder, num_documents=9))
  by_id = {d.id: d for d in longer.documents}
  assert all(by_id[d.id] == d for d in short.documents)


def test_what_the_data_sets_lack(folder):
  for changes, said in (
    ({'num_documents': 17}, '= 22 is more than the 21 paragraphs'),
    ({'known_set': 'squad/v1.1:train'}, "no split 'train'"),
    ({'tokenizer': 'lost'}, 'lost cannot be read'),
  ):
    assert said in _refused(folder, **changes)
  documents.make_task(_config(folder, num_documents=16, num_control=5))


def test_no_document_may_be_known_already(folder, tmp_path):
  text = documents.make_task(_config(folder)).pretraining[5].text
  file = tmp_path / 'mine.jsonl'
  file.write_text(json.dumps({'id': 'd0', 'text': text}), encoding='utf-8')
  said = _refused(folder, kind='jsonl', documents_file=str(file))
  assert "document 'd0' is also a pretraining text" in said


@pytest.mark.parametrize(
  ('changes', 'said'),
  [
    ({'num_documents': 0}, 'num_documents must be at least 1'),
    ({'augmentations': 0}, 'augmentations must be at least 1'),
    ({'seed': -1}, 'seed must be at least 0'),
    ({'tokenizer_vocab_size': 100}, 'tokenizer_vocab_size must be at least'),
    ({'kind': 'jsonl'}, 'documents_file is empty'),
  ],
)
def test_values_out_of_range(changes, said):
  assert said in _refused('x', **changes)


def test_the_config_is_built_by_the_schema():
  built = schema.build(
    {'kind': 'squad', 'data_dir': 'x', 'num_documents': 1e2},
    documents.DocumentsConfig,
    'config.data',
  )
  assert built == documents.DocumentsConfig(data_dir='x', num_documents=100)


def test_a_file_of_ones_own(folder, tmp_path):
  file = tmp_path / 'mine.jsonl'
  lines = [
    {
      'id': 'a',
      'title': 'Lisbon',
      'text': ' Lisbon is a port. It rains.\u2028So what? ',
      'questions': [{'question': 'What is Lisbon?', 'answers': ['a port']}],
      'source': 'left alone',
    },
    {'id': 'b', 'text': 'One sentence only'},
  ]
  text = '\n\n'.join(json.dumps(line, ensure_ascii=False) for line in lines)
  file.write_text(f'\ufeff{text}\n', encoding='utf-8')
  task = documents.make_task(
    _config(folder, kind='jsonl', documents_file=str(file), num_documents=1)
  )
  first, second = task.documents
  assert first.texts[0].text == 'Lisbon is a port. It rains.\u2028So what?'
  assert first.questions[0].prompt == 'Question: What is Lisbon? Answer:'
  assert first.questions[0].answers == ('a port',)
  assert not first.questions[0].seen
  assert [t.text for t in second.augmentations] == [
    'One sentence only',
    'As the text says: “One sentence only”',
  ]
  assert second.questions == ()
  assert set(task.questions) == {'known'}
  assert set(task.texts) == {'wikitext2_test'}


# The real data sets.


def test_real_documents(real_task):
  assert real_task.counts['documents'] == 200
  assert real_task.counts['pretraining_articles'] == 600
  assert real_task.counts['pretraining_paragraphs'] == 2429
  assert len({d.id.split('/')[0] for d in real_task.documents}) == 48
  assert len(real_task.texts['wikitext2_test']) == 60
  assert len(real_task.questions['known']) == 300
  assert all(d.questions for d in real_task.documents)
  bowl = next(d for d in real_task.documents if d.id == 'Super_Bowl_50/0')
  assert bowl.texts[0].text.startswith('Super Bowl 50 was an American football')
  assert 'Denver Broncos' in {a for q in bowl.questions for a in q.answers}


def test_sentences_of_real_paragraphs_lose_nothing(real_task):
  counts = []
  for document in real_task.documents:
    text = document.texts[0].text
    parts = sentences.split_sentences(text)
    assert ' '.join(parts).split() == text.split()
    counts.append(len(parts))
  assert 3 < sum(counts) / len(counts) < 8
