"""Scores of edits against plain loops."""

from flax import nnx
import numpy as np
import pytest

from smft_jax.data import task
from smft_jax.data import tokenizers
from smft_jax.evaluation import edits
from smft_jax.evaluation import evaluate
from tests.support import decoders

TEXT = 'Ada speaks Dutch at home and Bo speaks low Danish or old Norse there .'


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Compiles quickly: nothing runs often."""


def question(prompt, answer, *, seen=False):
  return task.Question(
    prompt=prompt, answers=(answer,), phrasing='', seen=seen, fact=''
  )


def document(name, asked, kept=()):
  return task.Document(
    id=name,
    augmentations=(task.Text(text='Ada'),),
    questions=tuple(
      question(*pair, seen=not place) for place, pair in enumerate(asked)
    ),
    texts=(),
    kept=tuple(question(*pair) for pair in kept),
  )


DOCUMENTS = (
  document(
    'a',
    [('Ada speaks', 'low Danish'), ('at home', 'old Norse'), ('Bo', 'Dutch')],
    [('Bo speaks', 'Danish or Norse there'), ('there', 'Norse')],
  ),
  document('b', [('Ada', 'Danish')], [('Dutch at home and', 'old Norse')]),
  document('c', [('Bo', 'speaks old')]),
)


@pytest.fixture(scope='module')
def tokenizer():
  return tokenizers.train_word_level([TEXT])


def params_of(tokenizer, seed):
  model = decoders.make_model(
    seed=seed,
    vocab_size=tokenizer.vocab_size,
    num_layers=2,
    **decoders.WITH_MEMORY,
  )
  return nnx.split(model)


@pytest.fixture(scope='module')
def measured(tokenizer):
  """The edits, and what writes likeliest tokens before and after."""
  graphdef, before = params_of(tokenizer, 4)
  _, after = params_of(tokenizer, 9)
  evaluator = evaluate.Evaluator(
    graphdef=graphdef,
    tokenizer=tokenizer,
    batch_size=3,
    max_length=16,
    max_answer_tokens=5,
  )
  return edits.make(evaluator, DOCUMENTS, before), before, after


def likeliest(found, params, ids):
  row = np.zeros((1, 16), np.int32)
  row[0, : len(ids)] = ids
  model = nnx.merge(found.evaluator.graphdef, params)
  logits = decoders.logits_of(model, row, np.arange(16)[None] < len(ids))
  return int(np.asarray(logits[0, len(ids) - 1]).argmax())


def forced(found, params, asked):
  """The likeliest tokens at the places of an answer, and its own."""
  tokenizer = found.evaluator.tokenizer
  prompt = [tokenizer.bos_id, *tokenizer.encode(asked.prompt)]
  answer = tokenizer.encode(asked.answers[0])
  tokens = [
    likeliest(found, params, prompt + answer[:n]) for n in range(len(answer))
  ]
  return tokens, answer


def written(found, params, asked):
  tokenizer = found.evaluator.tokenizer
  tokens = [tokenizer.bos_id, *tokenizer.encode(asked.prompt)]
  first = len(tokens)
  for _ in tokenizer.encode(asked.answers[0]):
    tokens.append(likeliest(found, params, tokens))
    if tokens[-1] == tokenizer.eos_id:
      break
  return tokens[first:]


def same(one, other):
  return np.mean(np.equal(one, other))


@pytest.mark.parametrize('chosen', [[0], [1], [2, 0], [0, 1, 2]])
def test_against_loops(measured, chosen):
  found, before, after = measured
  expected = {m: {d: [] for d in edits.DEFINITIONS} for m in edits.MEASURES}
  for index in chosen:
    asked = DOCUMENTS[index].questions
    for measure, questions in (
      ('reliability', asked[:1]),
      ('generalisation', asked[1:]),
    ):
      pairs = [forced(found, after, q) for q in questions]
      if pairs:
        of = expected[measure]
        of['token_accuracy'].append(np.mean([same(*p) for p in pairs]))
        of['exact'].append(np.mean([a == b for a, b in pairs]))
    kept = DOCUMENTS[index].kept
    if kept:
      of = expected['locality']
      of['token_accuracy'].append(
        np.mean(
          [
            same(forced(found, before, q)[0], forced(found, after, q)[0])
            for q in kept
          ]
        )
      )
      of['exact'].append(
        np.mean(
          [written(found, before, q) == written(found, after, q) for q in kept]
        )
      )
  got = found.measure(after, chosen)
  for measure, of in expected.items():
    for definition, values in of.items():
      want = np.mean(values) if values else None
      assert got[measure][definition] == (want and pytest.approx(want))


def test_a_base_keeps_all_that_it_said(measured):
  found, before, _ = measured
  shares = found.measure(before, range(3))
  assert shares['locality'] == {'token_accuracy': 1.0, 'exact': 1.0}


def test_greedy_decoding_writes_what_is_exact(measured):
  found, before, after = measured
  exact = {True: 0, False: 0}
  for params in (before, after):
    for index, one in enumerate(DOCUMENTS):
      tokens = written(found, params, one.questions[0])
      tokenizer = found.evaluator.tokenizer
      right = tokens == tokenizer.encode(one.questions[0].answers[0])
      got = found.measure(params, [index])['reliability']['exact']
      assert got == float(right)
      exact[right] += 1


def test_edits_without_prompts_to_keep(measured, tokenizer):
  found, before, _ = measured
  bare = edits.make(found.evaluator, DOCUMENTS[2:], before)
  assert bare.measure(before, [0])['locality'] == {
    'token_accuracy': None,
    'exact': None,
  }
