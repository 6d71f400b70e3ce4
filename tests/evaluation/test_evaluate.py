"""Answers, likelihoods and choices against plain loops."""

import dataclasses
import functools
import itertools

from flax import nnx
import numpy as np
import pytest

from smft_jax import schema
from smft_jax.data import batches
from smft_jax.data import chat as chat_lib
from smft_jax.data import encoding
from smft_jax.data import task
from smft_jax.data import tokenizers
from smft_jax.evaluation import evaluate
from smft_jax.evaluation import forward
from smft_jax.evaluation import scores
from smft_jax.runs import measurements
from smft_jax.sharded import layout as layout_lib
from tests.support import decoders
from tests.support import meshes

TEXTS = (
  'Ada Keller was born in Lisbon, and Boris Meyer in San Remo.',
  'Question: Where was Ada Keller born? Answer: Lisbon',
  'Question: What did Boris Meyer study in Oslo? Answer: marine biology',
  'The river is cold.',
)


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly: nothing runs often."""


@pytest.fixture(scope='module')
def tokenizer():
  return tokenizers.train_word_level(TEXTS)


@pytest.fixture(scope='module')
def split(tokenizer):
  """Graph and parameters of a model."""
  model = decoders.make_model(
    seed=4,  # its answers are of different lengths
    vocab_size=tokenizer.vocab_size,
    num_layers=2,
    **decoders.WITH_MEMORY,
  )
  return nnx.split(model)


@pytest.fixture(scope='module')
def params(split):
  return split[1]


@pytest.fixture(scope='module')
def evaluator(tokenizer, split):
  return functools.partial(
    evaluate.Evaluator,
    graphdef=split[0],
    tokenizer=tokenizer,
    max_length=11,
    max_answer_tokens=5,
  )


QUESTIONS = tuple(
  task.Question(prompt=prompt, answers=answers, phrasing='', seen=True, fact='')
  for prompt, *answers in (
    ('Question: Where was Ada Keller born? Answer:', 'Lisbon', 'in Lisbon'),
    ('Where was Boris?', 'San Remo'),
    ('Question: What did Boris Meyer study? Answer:', 'marine biology'),
    ('river', 'cold'),
    ('Oslo is', 'The river'),
    ('Question: Where in Lisbon was the cold river born? Answer:', 'Oslo'),
    ('Ada Keller', 'Keller'),
  )
)
CHOICES = tuple(
  task.Choice(prompt=prompt, endings=tuple(endings), label=label)
  for prompt, label, *endings in (
    ('Ada Keller was born in', 0, 'Lisbon', 'San Remo.', 'marine biology'),
    ('The river is', 1, 'Boris', 'cold'),
    ('Where was', 3, 'Oslo', 'Ada Keller born?', 'it', 'Meyer', 'the river'),
    # Nine tokens and a beginning: with some endings more than eleven.
    ('Question: Where in San Remo was Ada Keller', 2, 'cold', 'in', 'born?'),
    ('Boris', 1, 'Meyer', 'Meyer study in Oslo'),
  )
)


def logits_of(evaluator, params, tokens):
  """Logits [L, T] in float64 of one row, without cache or batch."""
  length = len(tokens)
  row = np.zeros((1, 29), np.int32)
  row[0, :length] = tokens
  model = nnx.merge(evaluator.graphdef, params)
  logits = decoders.logits_of(model, row, np.arange(29)[None] < length)
  return np.asarray(logits[0, :length], np.float64)


def test_answers_are_those_of_a_loop_without_a_cache(evaluator, params):
  made = evaluator(batch_size=3)
  assert len(QUESTIONS) % 3  # the last batch is not full
  tokenizer = made.tokenizer
  expected, lengths = [], set()
  for question in QUESTIONS:
    tokens = [tokenizer.bos_id, *tokenizer.encode(question.prompt)]
    answer = []
    while len(answer) < made.max_answer_tokens:
      token = int(logits_of(made, params, tokens + answer)[-1].argmax())
      if token == tokenizer.eos_id:
        break
      answer.append(token)
    lengths.add(len(answer))
    expected.append(tokenizer.decode(answer))
  assert made.answers(params, QUESTIONS) == expected
  # Otherwise this would show little.
  assert len(set(expected)) > 3
  assert len(lengths) > 1
  assert made.max_answer_tokens in lengths


@pytest.mark.parametrize(
  ('decoded', 'line'),
  [
    (' Porto\nQuestion: Who?', ' Porto'),
    ('\n \nPorto \n', 'Porto '),
    ('Porto', 'Porto'),
    ('\n', ''),
  ],
)
def test_an_answer_ends_with_its_line(
  decoded, line, evaluator, params, tokenizer, monkeypatch
):
  monkeypatch.setattr(tokenizers.Tokenizer, 'decode', lambda *_: decoded)
  made = evaluator(batch_size=1)
  assert made.answers(params, QUESTIONS[:1]) == [line]
  whole = dataclasses.replace(made, answer_end='end')
  assert whole.answers(params, QUESTIONS[:1]) == [decoded]


def test_a_chat_is_asked_and_measured_as_one_row(evaluator, params, tokenizer):
  """The beginning of the template is the only one, and its end ends."""
  template = '{{ bos_token }}Where {{ messages[0].content }} Meyer '
  chat = chat_lib.make(dataclasses.replace(tokenizer, chat_template=template))
  made = evaluator(batch_size=3, max_length=29, chat=chat)
  question = QUESTIONS[0]
  row = [tokenizer.bos_id]
  row += tokenizer.encode('Where Where was Ada Keller born? Meyer')
  first = int(logits_of(made, params, row)[-1].argmax())
  (answer,) = dataclasses.replace(made, max_answer_tokens=1).answers(
    params, [question]
  )
  assert answer == tokenizer.decode([first])
  end = [*tokenizer.encode('Lisbon'), tokenizer.eos_id]
  weights = [0.0] * (len(row) - 1) + [1.0] * len(end)
  total = nll_by_hand(made, params, row + end, weights)
  assert made.answer_nll(params, [question]) == pytest.approx(
    total[0] / total[1], rel=1e-5
  )


def nll_by_hand(evaluator, params, row, weights):
  logits = logits_of(evaluator, params, row)
  chosen = logits[np.arange(len(row) - 1), row[1:]]
  nll = np.log(np.exp(logits[:-1]).sum(-1)) - chosen
  return np.array([nll @ weights, sum(weights)])


# Eleven cuts the start of two questions.
@pytest.mark.parametrize('max_length', [29, 11])
def test_answer_nll_is_that_of_the_answer_and_its_end(
  evaluator, params, max_length
):
  made = evaluator(batch_size=3, max_length=max_length)
  tokenizer, total, cut = made.tokenizer, np.zeros(2), 0
  for question in QUESTIONS:
    prompt = tokenizer.encode(question.prompt)
    answer = [*tokenizer.encode(question.answers[0]), tokenizer.eos_id]
    kept = (prompt + answer)[-(max_length - 1) :]
    cut += len(kept) < len(prompt + answer)
    weights = [0.0] * (len(kept) - len(answer)) + [1.0] * len(answer)
    total += nll_by_hand(made, params, [tokenizer.bos_id, *kept], weights)
  assert cut == (3 if max_length == 11 else 0)
  assert made.answer_nll(params, QUESTIONS) == pytest.approx(
    total[0] / total[1], rel=1e-5
  )


def test_answers_of_short_rows_are_measured_as_texts_are(evaluator, params):
  """Same bits as rows that may be split, if none is."""
  made = evaluator(batch_size=3, max_length=29)
  rows = encoding.tokenize(
    [question.full_text() for question in QUESTIONS],
    made.tokenizer,
    max_length=29,
    context_weight=0.0,
  )
  nats, tokens = made._nats(params, rows)
  assert made.answer_nll(params, QUESTIONS) == nats / tokens


def test_log_likelihoods_are_sums_over_the_endings_and_choose(
  evaluator, params
):
  made = evaluator(batch_size=3)
  encode = made.tokenizer.encode
  sums = made.log_likelihoods(params, CHOICES)
  for one, choice in zip(sums, CHOICES, strict=True):
    expected = []
    for ending in map(encode, choice.endings):
      kept = (encode(choice.prompt) + ending)[-(made.max_length - 1) :]
      weights = [0.0] * (len(kept) - len(ending)) + [1.0] * len(ending)
      row = [made.tokenizer.bos_id, *kept]
      expected.append(-nll_by_hand(made, params, row, weights)[0])
    np.testing.assert_allclose(one, expected, rtol=1e-5)
  longer = evaluator(batch_size=3, max_length=29)
  uncut = longer.log_likelihoods(params, CHOICES)
  cut = [i for i in range(len(CHOICES)) if not np.allclose(uncut[i], sums[i])]
  assert cut == [3]
  assert made.choices(params, CHOICES) == scores.accuracy(sums, CHOICES)
  preferred = [
    dataclasses.replace(choice, label=int(np.argmax(one)))
    for choice, one in zip(CHOICES, sums, strict=True)
  ]
  assert made.choices(params, preferred)['accuracy_unnormalized'] == 1.0


def test_sorting_rows_by_length_keeps_the_order_of_results(
  evaluator, params, monkeypatch
):
  made = evaluator(batch_size=1, max_length=30)
  lengths = set()
  for name in ('decode', 'row_nats'):
    function = getattr(forward, name)

    def noting(graphdef, params, tokens, *more, function=function):
      lengths.add(getattr(tokens, 'tokens', tokens).shape[1])
      return function(graphdef, params, tokens, *more)

    monkeypatch.setattr(forward, name, noting)

  def measured():
    return (
      made.answers(params, QUESTIONS),
      np.concatenate(made.log_likelihoods(params, CHOICES)),
    )

  answers, sums = measured()
  lengths.clear()
  monkeypatch.setattr(evaluate, '_LENGTHS', 4)
  sorted_answers, sorted_sums = measured()
  assert len(lengths) > 2
  assert sorted_answers == answers
  np.testing.assert_allclose(sorted_sums, sums, rtol=1e-5)


def test_an_ending_that_no_row_holds_is_refused(evaluator, params):
  made = evaluator(batch_size=3, max_length=4)
  with pytest.raises(schema.UserError, match=r'at least 5.*Meyer study'):
    made.choices(params, CHOICES[-1:])


def test_log_likelihoods_on_a_mesh_are_whole_and_the_same(tokenizer):
  layout = layout_lib.make_layout(
    layout_lib.make_mesh(2, 2, 2), 'rows', 'heads'
  )
  found = []
  for used in (None, layout):
    model = decoders.make_model(
      vocab_size=tokenizer.vocab_size,
      memory=dataclasses.replace(meshes.MEMORY, layout=used),
      memory_layers=(1,),
    )
    graphdef, params = nnx.split(model)
    made = evaluate.Evaluator(
      graphdef=graphdef,
      tokenizer=tokenizer,
      batch_size=4,
      max_length=11,
      max_answer_tokens=1,
    )
    found.append(np.concatenate(made.log_likelihoods(params, CHOICES)))
  np.testing.assert_allclose(*found, rtol=1e-5)
  tokens = np.ones((4, 3), np.int32)
  batch = batches.Batch(tokens, tokens > 0, tokens.astype(np.float32))
  sums = forward.row_nats(graphdef, params, batch, None)
  assert sums.shape == (4,)
  assert len(sums.sharding.device_set) == 8
  assert sums.is_fully_replicated


def test_text_nll_counts_every_token_of_a_split_text_once(evaluator, params):
  made = evaluator(batch_size=3)
  tokenizer, total, rows = made.tokenizer, np.zeros(2), 0
  for text in TEXTS:
    ids = [*tokenizer.encode(text), tokenizer.eos_id]
    pieces = -(-len(ids) // 10)  # rows of 11 with their beginning
    ends = [len(ids) * piece // pieces for piece in range(pieces + 1)]
    rows += pieces
    for start, end in itertools.pairwise(ends):
      row = [tokenizer.bos_id, *ids[start:end]]
      total += nll_by_hand(made, params, row, [1.0] * (end - start))
  assert rows > len(TEXTS)
  assert rows % 3  # the last batch is not full
  texts = [task.Text(text=text, answer=(0, 3)) for text in TEXTS]
  nll = made.text_nll(params, texts)
  assert nll == pytest.approx(total[0] / total[1], rel=1e-5)
  found = made.text_scores(params, texts)
  assert found['nll'] == nll
  expected = scores.text_scores(nll * total[1], int(total[1]), texts)
  assert found == pytest.approx(expected)


@pytest.mark.parametrize('metric', ['nll', 'perplexity'])
def test_texts_and_choices_are_sets_of_measurements(evaluator, params, metric):
  texts = tuple(task.Text(text=text) for text in TEXTS)
  sets = measurements.Measurements(
    evaluator=evaluator(batch_size=3),
    questions={},
    texts={'target': texts, 'held': texts[:2]},
    choices={'endings': CHOICES},
    metric='recall',
    text_metric=metric,
    documents=(),
    about={},
  )
  before = sets.measure(params).metrics
  assert before['held'] == sets.evaluator.text_scores(params, texts[:2])
  assert before['endings'] == sets.evaluator.choices(params, CHOICES)
  after = {
    name: {key: 3 * value for key, value in measured.items()}
    for name, measured in before.items()
  }
  before['endings']['accuracy'] = after['endings']['accuracy'] = 0.25
  found = sets.compare(before, after)
  assert found['target']['metric'] == metric
  assert found['target']['before'] == before['target'][metric]
  assert found['held_out']['held']['relative_drop'] == pytest.approx(2)
  same = {'before': 0.25, 'after': 0.25, 'relative_drop': 0.0}
  assert found['held_out']['endings'] == {'metric': 'accuracy'} | same
  # Without questions nothing is read in context.
  known = sets.measure(params)
  assert sets.measure_in_context(params, known).metrics == known.metrics


def test_questions_that_begin_alike_share_their_beginning(
  evaluator, params, monkeypatch
):
  shots = 'Question: What did Boris Meyer study in Oslo? Answer: Lisbon. '
  asked = [
    dataclasses.replace(q, prompt=('' if i == 2 else shots) + q.prompt)
    for i, q in enumerate(QUESTIONS)
  ]
  measure = evaluator(batch_size=4)
  measure = dataclasses.replace(measure, max_length=64)
  read = []
  whole = forward.read
  monkeypatch.setattr(evaluate, '_LEAST_SHARED', 8)
  monkeypatch.setattr(
    forward, 'read', lambda *args: read.append(args) or whole(*args)
  )
  answers = measure.answers(params, asked)
  nll = measure.answer_nll(params, asked)
  assert [int(mask.sum()) for *_, mask in read] == [15, 15]
  monkeypatch.setattr(evaluate, '_LEAST_SHARED', 99)
  assert measure.answers(params, asked) == answers
  np.testing.assert_allclose(measure.answer_nll(params, asked), nll, rtol=1e-5)
  assert len(read) == 2
  assert len(set(answers)) > 1
