"""Asks a model before and after it learned, and shows which slots answered.

  python -m smft_jax.ask --workdir=runs/docqa "Where was Ada Keller born?"
  python -m smft_jax.ask --workdir=runs/docqa --lesson=A --lesson=B "..."

Prints the answer of the run's base and of the model after the run. With
lessons, prints the answer of the base and of the base with each lesson, all
read at once from one value table. Without a question it reads one from each
line of its input.

A text that ends in '?' is asked as in the evaluation, 'Question: ... Answer:',
few-shot or in a chat if the run's config.evaluation says so; any other text is
continued. An answer ends as in the evaluation. The slots shown are those read
at the last token of the prompt and at the tokens of the answer, over all memory
layers, with their shares of the weight; * marks slots that the lesson changed.
With a quorum, which few tokens reach, they are those read at any token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import functools
import pathlib
import sys
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from smft_jax import lesson as lesson_lib
from smft_jax import memory
from smft_jax import overlay as overlay_lib
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.data.retelling import sentences
from smft_jax.data.world import words as world_words
from smft_jax.evaluation import evaluate
from smft_jax.lesson import file as lesson_file
from smft_jax.lesson import models as lesson_models
from smft_jax.runs import base as base_lib
from smft_jax.runs import saved_run
from smft_jax.runs import sets
from smft_jax.runs import states
from smft_jax.runtime import arguments as arguments_lib
from smft_jax.runtime import program
from smft_jax.store import checksum
from smft_jax.store import paths
from smft_jax.training import state as state_lib

# Slots shown of an answer.
_SHOWN = 5

# Settings of the evaluation that the command line may replace.
_SETTINGS: dict[str, dict[str, Any]] = {
  'max_answer_tokens': {'type': int},
  'prompt_format': {'choices': ('plain', 'few_shot', 'chat')},
  'shots': {'type': int},
}

# Makes what asks, of a model and the number of its versions.
_MakeEvaluator = Callable[[nnx.GraphDef, int], evaluate.Evaluator]

_NO_SLOTS = np.zeros(0, np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """One or more versions of a model, asked in one batch.

  Attributes:
    names: Name of each version.
    changed: Slots that a lesson changed, for each version.
    evaluator: Its batch has a row for each version.
    params: The parameters.
    overlay: Rows that the versions read in place of the table's.
  """

  names: tuple[str, ...]
  changed: tuple[np.ndarray, ...]
  evaluator: evaluate.Evaluator
  params: nnx.State
  overlay: overlay_lib.Overlay | None = None

  def ask(self, prompt: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Returns each version's answer to a prompt, and the slots behind it.

    The slots [S] are in order of their shares [S] of the weight of all reads;
    a model without memory has none.
    """
    tokenizer = self.evaluator.tokenizer
    questions = [_question(prompt)] * len(self.names)
    answers = self.evaluator.answers(self.params, questions, self.overlay)
    texts = [text.strip() for text in answers]
    graphdef = self.evaluator.graphdef
    config = nnx.merge(graphdef, self.params).config
    if not config.memory_layers:
      return [(text, _NO_SLOTS, np.zeros(0)) for text in texts]
    tokenize = functools.partial(
      encoding.tokenize_prompts, tokenizer=tokenizer, chat=self.evaluator.chat
    )
    rows = tokenize([prompt] * len(texts), answers=texts)
    (asked,) = tokenize([prompt]).lengths
    length = batches.bucket_length(rows.longest)
    batch = batches.pad(rows, length, tokenizer.pad_id)
    slot_ids, weights = jax.device_get(
      _accesses(graphdef, self.params, batch.tokens, batch.mask, self.overlay)
    )
    reading = batch.mask
    if not config.memory.quorum:
      # Every token reads; with a quorum it is the names in the question.
      reading = reading & (np.arange(length) >= asked - 1)
    return [
      (text, *_shares(slot_ids[i][reading[i]], weights[i][reading[i]]))
      for i, text in enumerate(texts)
    ]


def with_lessons(
  make_evaluator: _MakeEvaluator,
  base: base_lib.Base,
  lessons: Sequence[lesson_lib.Lesson],
  names: Sequence[str],
) -> Model:
  """Returns the base and the base with each lesson, over one table.

  Raises:
    UserError: If a lesson is of another base, or this one has no memory.
  """
  _, fingerprint = lesson_models.named(
    ', '.join(names), lesson_models.identify, base.params
  )
  table = state_lib.value_table(base.params)
  for lesson, name in zip(lessons, names, strict=True):
    lesson_models.named(name, lesson_lib.check_base, lesson, fingerprint)
    lesson_models.named(name, lesson_lib.check_rows, table, lesson)
  which = range(-1, len(lessons))
  return Model(
    names=('base', *names),
    changed=(_NO_SLOTS, *(lesson.slots for lesson in lessons)),
    evaluator=make_evaluator(base.graphdef, len(which)),
    params=base.params,
    overlay=lesson_lib.overlay(lessons, which),
  )


def before_and_after(
  make_evaluator: _MakeEvaluator,
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  workdir: pathlib.Path,
) -> list[Model]:
  """Returns a run's base and, if it streamed documents, the finetuned model."""

  def model(name: str, changed: np.ndarray, graphdef, params) -> Model:
    evaluator = make_evaluator(graphdef, 1)
    return Model(
      names=(name,), changed=(changed,), evaluator=evaluator, params=params
    )

  models = [model('base', _NO_SLOTS, base.graphdef, base.params)]
  if experiment.stream is not None:
    state = states.last_state(experiment, base, workdir)
    differing = checksum.differing_rows(
      *(state_lib.value_table(p) for p in (base.params, state.params))
    )
    changed = np.flatnonzero(np.asarray(differing))
    models.append(model(str(workdir), changed, state.graphdef, state.params))
  return models


def prompt_of(
  text: str, base: base_lib.Base, settings: sections.EvaluationConfig
) -> str:
  """Formats a text as the evaluation does if it is a question.

  Args:
    text: The text.
    base: Its data has the examples of few-shot prompts.
    settings: How to ask.
  """
  if not text.endswith(sentences.QUESTION_MARKS):
    return text
  prompt = world_words.QUESTION_FORMAT.format(question=text)
  if not settings.shots:  # nor is any data read
    return prompt
  (question,) = sets.prompted([_question(prompt)], base.task, settings)
  return question.prompt


def lines(models: Sequence[Model], prompt: str) -> list[str]:
  """Returns the answers to a prompt and the slots behind them, as lines."""
  width = max(len(name) for model in models for name in model.names)
  shown = []
  for model in models:
    answers = model.ask(prompt)
    for name, changed, (text, slots, shares) in zip(
      model.names, model.changed, answers, strict=True
    ):
      is_changed = np.isin(slots, changed)
      marks = np.where(is_changed, '*', '')
      named = [
        f'{slot}{mark} {share:.1%}'
        for slot, mark, share in zip(slots, marks, shares, strict=True)
      ]
      shown.append(f'{name:<{width}}  {text or "(nothing)"}')
      shown.append(
        f'{"":<{width}}  slots {", ".join(named[:_SHOWN]) or "none"}'
      )
      if len(changed):
        share = np.sum(shares[is_changed])
        heaviest = [named[i] for i in np.flatnonzero(is_changed)[:_SHOWN]]
        listed = ', '.join(heaviest) or 'none'
        shown.append(f'{"":<{width}}  {share:.0%} on changed slots: {listed}')
  return shown


def main(argv: list[str]) -> None:
  """Runs the program."""
  parser = arguments_lib.Parser(
    prog='python -m smft_jax.ask',
    description='Asks a model before and after it learned.',
  )
  parser.add_argument(
    'question', nargs='?', help='default: read questions from stdin, one a line'
  )
  parser.add_argument(
    '--workdir', required=True, help='workdir of a run of smft_jax.train'
  )
  parser.add_argument(
    '--lesson', action='append', default=[], help='lesson file; repeatable'
  )
  for name, values in _SETTINGS.items():
    parser.add_argument(
      f'--{name}', help="default: that of the run's evaluation", **values
    )
  arguments = parser.parse(argv)
  workdir = paths.expand(arguments.workdir)
  if arguments.question is not None:
    _check(arguments.question)
  lessons = [lesson_file.read(name) for name in arguments.lesson]
  experiment = saved_run.load_experiment(workdir)
  settings = _settings(experiment.evaluation, arguments)
  base = saved_run.load_base(experiment, workdir)
  make_evaluator = functools.partial(
    _evaluator, settings, base, experiment.base.max_length
  )
  if lessons:
    models = [with_lessons(make_evaluator, base, lessons, arguments.lesson)]
  else:
    models = before_and_after(make_evaluator, experiment, base, workdir)
  for text in [arguments.question] if arguments.question else _typed():
    for unknown in _unknown_words(base.tokenizer, text):
      print(f'(the model does not know the word {unknown!r})')
    prompt = prompt_of(text.strip(), base, settings)
    print('\n'.join(lines(models, prompt)), flush=True)


def _typed() -> Iterable[str]:
  """Yields the non-empty lines of the input."""
  while True:
    if sys.stdin.isatty():
      print('> ', end='', flush=True)
    line = sys.stdin.readline()
    if not line:
      return
    if line.strip():
      _check(line)
      yield line.strip()


def _check(text: str) -> None:
  """Raises a UserError unless a text can be asked."""
  if not text.strip():
    raise schema.UserError('the question is empty')
  try:
    text.encode()
  except UnicodeEncodeError:  # of bytes that Python could not decode
    raise schema.UserError(
      f'the question {schema.brief(text.strip())} is not in UTF-8'
    ) from None


def _unknown_words(tokenizer: tokenizers.Tokenizer, text: str) -> list[str]:
  """Returns the words that a word-level tokenizer does not know."""
  unknown = tokenizer.inner.token_to_id(tokenizers.UNKNOWN)
  ids, offsets = tokenizer.encode_with_offsets(text)
  return [
    text[slice(*span)]
    for token, span in zip(ids, offsets, strict=True)
    if token == unknown
  ]


def _settings(settings, arguments) -> sections.EvaluationConfig:
  """Returns a run's settings, replaced by those of the command line."""
  given = {k: getattr(arguments, k) for k in _SETTINGS}
  given = {k: value for k, value in given.items() if value is not None}
  if given.get('prompt_format') in ('plain', 'chat'):
    given.setdefault('shots', 0)
  try:
    return dataclasses.replace(settings, **given)
  except schema.UserError as error:
    raise schema.UserError(f'--{error}') from None


def _question(prompt: str) -> task_lib.Question:
  return task_lib.Question(
    prompt=prompt, answers=('?',), phrasing='', seen=False, fact=''
  )


def _evaluator(
  settings, base, max_length: int, graphdef: nnx.GraphDef, size: int
) -> evaluate.Evaluator:
  settings = dataclasses.replace(settings, batch_size=size)
  return sets.evaluator(
    settings, base.tokenizer, graphdef, max_length, base.config.vocab_size
  )


@functools.partial(jax.jit, static_argnums=0)
def _accesses(graphdef, params, tokens, mask, overlay):
  """Returns slot ids and weights [B, L, A] of all memory layers."""
  forward = nnx.capture(
    nnx.merge(graphdef, params), memory.SlotIds, memory.SlotWeights
  )
  more = {} if overlay is None else {'overlay': overlay}
  _, *sown = forward(tokens, mask, **more)
  return [jnp.concatenate(jax.tree.leaves(kind), axis=-1) for kind in sown]


def _shares(
  slot_ids: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the slots of some accesses and their shares, heaviest first."""
  slots, place = np.unique(slot_ids, return_inverse=True)
  shares = np.bincount(place.ravel(), weights.ravel().astype(np.float64))
  order = np.argsort(-shares, kind='stable')[: np.count_nonzero(shares)]
  return slots[order], shares[order] / shares.sum()


if __name__ == '__main__':
  sys.exit(program.run(main))
