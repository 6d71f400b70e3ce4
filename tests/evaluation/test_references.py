"""Every measure against a reference, on a thousand or more real examples.

Another library scores the answers. Likelihoods come from a float64 decoder that
reads one row at a time; scores are computed from them by their definitions.
"""

import dataclasses
import functools
import itertools
import math

from flax import nnx
import numpy as np
import pytest

from smft_jax.data import task
from smft_jax.data import tokenizers
from smft_jax.evaluation import evaluate
from smft_jax.evaluation import scores
from tests.support import decoders
from tests.support import real_data

COUNT = 1000
REL = 1e-6
# The decoder that reads one row at a time needs minutes for all of them.
COUNTS = pytest.mark.parametrize(
  'count', [23, pytest.param(COUNT, marks=pytest.mark.slow)]
)
MODEL = {
  'model_dim': 16,
  'num_layers': 1,
  'num_heads': 2,
  'num_kv_heads': 1,
  'head_dim': 8,
}


def squad_questions(data_dir):
  examples = real_data.examples('squad/v1.1', 'validation', data_dir)
  return [
    task.Question(
      prompt=example['question'],
      answers=tuple(example['answers']['text']),
      phrasing='',
      seen=False,
      fact=example['id'],
    )
    for example in examples[::5]
  ]


def perturbed(index, questions):
  """An answer to a question that is more or less right; which, is fixed."""
  gold = questions[index].answers[-1]
  words = gold.split()
  return (
    gold,
    f'The {gold.upper()}!',
    ' '.join(words[1:]),
    ' '.join(words[::-1]),
    f'{gold}, and {gold} of a {words[0]}',
    gold[: len(gold) // 2],
    f'"{gold}" in {questions[index - 1].answers[0]}',
    questions[index - 1].answers[0],
    questions[index].prompt,
    '',
  )[index % 10]


@pytest.mark.filterwarnings('ignore')  # not ours to keep free of them
def test_scores_of_squad_are_those_of_torchmetrics(data_dir):
  text = pytest.importorskip('torchmetrics.text')
  questions = squad_questions(data_dir)
  said = [perturbed(i, questions) for i in range(len(questions))]
  recalls, f1s = [], []
  reference = text.SQuAD()
  for answer, question in zip(said, questions, strict=True):
    accepted = list(question.answers)
    gold = {'text': accepted, 'answer_start': [0] * len(accepted)}
    one = reference(
      {'prediction_text': answer, 'id': question.fact},
      {'answers': gold, 'id': question.fact},
    )
    recalls.append(float(one['exact_match']) / 100)
    f1s.append(float(one['f1']) / 100)
    own = scores.score([answer], [question])
    assert own['squad_exact_match'] == recalls[-1]
    assert own['squad_f1'] == pytest.approx(f1s[-1], rel=REL), (
      answer,
      question,
    )
  assert len(questions) > 2 * COUNT
  assert 0.15 < np.mean(recalls) < 0.5
  assert sum(0 < f1 < 1 for f1 in f1s) > COUNT / 2
  own = scores.score(said, questions)
  assert own['squad_exact_match'] == pytest.approx(np.mean(recalls), rel=REL)
  assert own['squad_f1'] == pytest.approx(np.mean(f1s), rel=REL)
  whole = {name: float(value) for name, value in reference.compute().items()}
  assert 100 * own['squad_exact_match'] == pytest.approx(
    whole['exact_match'], rel=REL
  )
  assert 100 * own['squad_f1'] == pytest.approx(whole['f1'], rel=REL)


def choices_of(data_dir, count=COUNT):
  examples = real_data.examples('hellaswag_text', 'validation', data_dir)
  return [
    task.Choice(
      prompt=example['context'],
      endings=tuple(example['endings']),
      label=int(example['label']),
    )
    for example in examples[: 10 * count : 10]
  ]


def accuracy_by_hand(sums, choices):
  """Shares in which the ending preferred by character, and at all, is right."""
  right = np.zeros(2)
  for one, choice in zip(sums, choices, strict=True):
    by_character = [
      float(s) / float(len(e)) for s, e in zip(one, choice.endings, strict=True)
    ]
    for index, values in enumerate((by_character, list(one))):
      right[index] += values.index(max(values)) == choice.label
  by_character, at_all = right / len(choices)
  return {'accuracy': by_character, 'accuracy_unnormalized': at_all}


def test_accuracy_of_random_likelihoods(data_dir):
  choices = choices_of(data_dir)
  random = np.random.default_rng(0)
  sums = [
    -random.gamma(9, [len(e) / 9 for e in choice.endings]) for choice in choices
  ]
  for tie in range(0, COUNT, 7):
    sums[tie][1:3] = sums[tie].max()
  found = scores.accuracy(sums, choices)
  assert found == pytest.approx(accuracy_by_hand(sums, choices), rel=REL)
  assert found['accuracy'] != found['accuracy_unnormalized']
  assert len(choices) == COUNT


def make_evaluator(texts, max_length):
  """An evaluator with a tokenizer trained on texts, parameters, the model."""
  tokenizer = tokenizers.train_byte_level_bpe(texts, 512)
  model = decoders.make_model(vocab_size=tokenizer.vocab_size, **MODEL)
  graphdef, params = nnx.split(model)
  made = evaluate.Evaluator(
    graphdef=graphdef,
    tokenizer=tokenizer,
    batch_size=32,
    max_length=max_length,
    max_answer_tokens=1,
  )
  return made, params, functools.partial(decoders.reference, model)


def nats_by_hand(logits_of, row, count):
  """Negative log-likelihood of the last tokens of one row, in float64."""
  logits = logits_of(row[:-1])
  top = logits.max(axis=-1)
  whole = top + np.log(np.sum(np.exp(logits - top[:, None]), axis=-1))
  nats = whole - logits[np.arange(len(logits)), row[1:]]
  return math.fsum(nats[len(nats) - count :])


def nats_of(made, logits_of, ids, count):
  """The same for a row that may lose its start, and whether it does."""
  row = [made.tokenizer.bos_id, *ids[-(made.max_length - 1) :]]
  return nats_by_hand(logits_of, row, count), len(ids) + 1 > made.max_length


@COUNTS
def test_log_likelihoods_and_accuracy_of_choices(data_dir, count):
  choices = choices_of(data_dir, count)
  made, params, logits_of = make_evaluator([c.prompt for c in choices], 224)
  encode = made.tokenizer.encode
  expected, cut = [], 0
  for choice in choices:
    prompt_length = len(encode(choice.prompt))
    expected.append([])
    for ending in choice.endings:
      ids = encode(f'{choice.prompt} {ending}')
      nats, lost = nats_of(made, logits_of, ids, len(ids) - prompt_length)
      expected[-1].append(-nats)
      cut += lost
  assert len(choices) == count
  assert 0 < cut < 2 * count  # of four times as many
  sums = made.log_likelihoods(params, choices)
  np.testing.assert_allclose(sums, expected, rtol=REL)
  found = made.choices(params, choices)
  assert found == pytest.approx(accuracy_by_hand(expected, choices), rel=REL)


@COUNTS
def test_nll_of_answers(data_dir, count):
  examples = real_data.examples('gsm8k', 'test', data_dir)[:count]
  questions = [
    task.Question(
      prompt=f'Question: {example["question"]} Answer:',
      answers=(example['answer'],),
      phrasing='',
      seen=False,
      fact=str(index),
    )
    for index, example in enumerate(examples)
  ]
  made, params, logits_of = make_evaluator(
    [question.full_text().text for question in questions], 0
  )
  tokenizer = made.tokenizer
  rows, spaces = [], 0
  for question in questions:
    prompt_length = len(tokenizer.encode(question.prompt))
    ids = tokenizer.encode(f'{question.prompt} {question.answers[0]}')
    # A space that is a token of its own is before the answer, not in it.
    own_space = tokenizer.decode([ids[prompt_length]]) == ' '
    spaces += own_space
    answer_length = len(ids) - prompt_length - own_space
    rows.append(([*ids, tokenizer.eos_id], answer_length + 1))
  # The least that holds every answer.
  made = dataclasses.replace(made, max_length=1 + max(n for _, n in rows))
  nats, cut = [], 0
  for ids, answer_length in rows:
    one, lost = nats_of(made, logits_of, ids, answer_length)
    nats.append(one)
    cut += lost
  assert len(nats) == count
  assert 0 < cut < count / 2
  assert 0 < spaces < count / 2
  assert made.answer_nll(params, questions) == pytest.approx(
    math.fsum(nats) / sum(n for _, n in rows), rel=REL
  )


@COUNTS
def test_scores_of_texts(data_dir, count):
  articles = real_data.examples('wikitext2', 'test', data_dir)
  lines = [line for a in articles for line in a['text'].split('\n')]
  texts = [task.Text(text=line) for line in lines if line.strip()][:count]
  made, params, logits_of = make_evaluator([t.text for t in texts], 128)
  tokenizer, nats, tokens, split = made.tokenizer, [], 0, 0
  for text in texts:
    ids = [*tokenizer.encode(text.text), tokenizer.eos_id]
    pieces = math.ceil(len(ids) / (made.max_length - 1))
    ends = [len(ids) * piece // pieces for piece in range(pieces + 1)]
    for start, end in itertools.pairwise(ends):
      row = [tokenizer.bos_id, *ids[start:end]]
      nats.append(nats_by_hand(logits_of, row, end - start))
    tokens += len(ids)
    split += pieces > 1
  assert len(texts) == count
  assert count / 10 < split < count
  total = math.fsum(nats)
  # Every line here has a space at both ends: an empty piece each.
  words = sum(len(t.text.split()) + 2 for t in texts)
  size = sum(len(t.text.encode('utf-8')) for t in texts)
  assert made.text_scores(params, texts) == pytest.approx(
    {
      'nll': total / tokens,
      'perplexity': math.exp(total / tokens),
      'word_perplexity': math.exp(total / words),
      'bits_per_byte': total / size / math.log(2),
    },
    rel=REL,
  )
  assert made.text_nll(params, texts) == pytest.approx(total / tokens, rel=REL)
