"""What a model knows: scores by hand, answers and losses by plain loops."""

import functools
import itertools

from flax import nnx
import jax
import numpy as np
import pytest

from smft_jax import evaluate
from smft_jax.data import task
from smft_jax.data import tokenizers
from tests import test_transformer

TEXTS = (
  'Ada Keller was born in Lisbon, and Boris Meyer in San Remo.',
  'Question: Where was Ada Keller born? Answer: Lisbon',
  'Question: What did Boris Meyer study in Oslo? Answer: marine biology',
  'The river is cold.',
)


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Nothing here runs often enough to be optimized."""


@pytest.fixture(scope='module')
def tokenizer():
  return tokenizers.train_word_level(TEXTS)


def make_model(tokenizer):
  return test_transformer.make_model(
    seed=4,  # its answers are of different lengths
    vocab_size=tokenizer.vocab_size,
    num_layers=2,
    **test_transformer.WITH_MEMORY,
  )


@pytest.fixture(scope='module')
def params(tokenizer):
  return nnx.split(make_model(tokenizer))[1]


@pytest.fixture(scope='module')
def evaluator(tokenizer):
  return functools.partial(
    evaluate.Evaluator,
    graphdef=nnx.split(make_model(tokenizer))[0],
    tokenizer=tokenizer,
    max_length=11,
    max_answer_tokens=5,
  )


def make_question(prompt, *answers):
  return task.Question(
    prompt=prompt, answers=answers, phrasing='', seen=True, fact=''
  )


QUESTIONS = tuple(
  make_question(prompt, *answers)
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


@pytest.mark.parametrize(
  ('answer', 'normal'),
  [
    ('The  Eiffel-Tower!', 'eiffeltower'),
    ('a cat, an owl and the dog.', 'cat owl and dog'),
    ('theatre', 'theatre'),
    ('U.S.A.', 'usa'),
    ('the', ''),
  ],
)
def test_normalize_answer(answer, normal):
  assert evaluate.normalize_answer(answer) == normal


@pytest.mark.parametrize(
  ('answer', 'accepted', 'exact', 'f1'),
  [
    ('Lisbon', ['lisbon'], 1, 1),
    ('the Lisbon.', ['Porto', 'Lisbon'], 1, 1),
    ('city of Lisbon', ['Lisbon'], 0, 1 / 2),
    ('San Remo in Italy', ['Remo', 'San Remo'], 0, 2 / 3),
    ('a b b c', ['b b b'], 0, 2 * 2 / 6),  # the article goes
    ('Porto', ['Lisbon'], 0, 0),
    ('', ['Lisbon'], 0, 0),
    ('', ['the'], 1, 1),
    ('Lisbon', ['the'], 0, 0),
  ],
)
def test_exact_match_and_f1_by_hand(answer, accepted, exact, f1):
  assert evaluate.exact_match(answer, accepted) == exact
  assert evaluate.f1_score(answer, accepted) == pytest.approx(f1)


@pytest.mark.filterwarnings('ignore')  # not ours to keep free of them
def test_scores_are_those_of_torchmetrics():
  text = pytest.importorskip('torchmetrics.text')
  words = ['Lisbon', 'the', 'a', 'San', 'Remo', 'U.S.', 'of', '!', 'lisbon']
  random = np.random.default_rng(0)

  def phrase(least):
    return ' '.join(random.choice(words, random.integers(least, 6)))

  for number in range(101):
    answer, accepted = phrase(0), [phrase(1) for _ in range(3)]
    scores = text.SQuAD()(
      [{'prediction_text': answer, 'id': str(number)}],
      [
        {
          'answers': {'text': accepted, 'answer_start': [0, 0, 0]},
          'id': str(number),
        }
      ],
    )
    exact = 100 * evaluate.exact_match(answer, accepted)
    assert exact == pytest.approx(float(scores['exact_match']))
    f1 = 100 * evaluate.f1_score(answer, accepted)
    assert f1 == pytest.approx(float(scores['f1']), rel=1e-5)


@functools.partial(jax.jit, static_argnums=0)
def _logits(graphdef, params, tokens, mask):
  return nnx.merge(graphdef, params)(tokens, mask)


def logits_of(evaluator, params, tokens):
  """Logits [L, T] in float64 of one row, without cache or batch."""
  length = len(tokens)
  row = np.zeros((1, 29), np.int32)
  row[0, :length] = tokens
  mask = np.arange(29)[None] < length
  logits = _logits(evaluator.graphdef, params, row, mask)
  return np.asarray(logits[0, :length], np.float64)


def test_answers_are_those_of_a_loop_without_a_cache(evaluator, params):
  made = evaluator(batch_size=3)
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


def nll_by_hand(evaluator, params, row, weights):
  logits = logits_of(evaluator, params, row)
  nll = np.log(np.exp(logits[:-1]).sum(-1)) - np.take_along_axis(
    logits[:-1], np.array(row)[1:, None], axis=-1
  ).squeeze(-1)
  return np.array([nll @ weights, sum(weights)])


def test_answer_nll_is_that_of_the_answer_and_its_end(evaluator, params):
  made = evaluator(batch_size=3, max_length=29)
  tokenizer, total = made.tokenizer, np.zeros(2)
  for question in QUESTIONS:
    prompt = [tokenizer.bos_id, *tokenizer.encode(question.prompt)]
    answer = [*tokenizer.encode(question.answers[0]), tokenizer.eos_id]
    weights = [0.0] * (len(prompt) - 1) + [1.0] * len(answer)
    total += nll_by_hand(made, params, prompt + answer, weights)
  assert made.answer_nll(params, QUESTIONS) == pytest.approx(
    total[0] / total[1], rel=1e-5
  )


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
  texts = [task.Text(text=text, answer=(0, 3)) for text in TEXTS]
  assert made.text_nll(params, texts) == pytest.approx(
    total[0] / total[1], rel=1e-5
  )


def test_a_last_batch_that_is_not_full_counts_as_it_is(evaluator, params):
  one, three = evaluator(batch_size=1), evaluator(batch_size=3)
  texts = [task.Text(text=text) for text in TEXTS]
  assert len(QUESTIONS) % 3
  assert len(TEXTS) % 3
  assert one.answers(params, QUESTIONS) == three.answers(params, QUESTIONS)
  for measure, entries in (('answer_nll', QUESTIONS), ('text_nll', texts)):
    alone = getattr(one, measure)(params, entries)
    together = getattr(three, measure)(params, entries)
    assert together == pytest.approx(alone, rel=1e-6)


def test_scores_are_means():
  said = ['in Lisbon', 'Remo', 'biology', 'warm', 'river', 'Oslo', '']
  found = evaluate.score(said, QUESTIONS)
  assert found['recall'] == pytest.approx(3 / 7)
  assert found['f1'] == pytest.approx((3 + 2 / 3 + 2 / 3) / 7)
