"""Asks a model, before and after it learned, and shows the slots that answer.

  python -m smft_jax.ask --workdir=runs/docqa "Where was Ada Keller born?"
  python -m smft_jax.ask --workdir=runs/docqa --lesson=A --lesson=B "..."

It answers as the base of a run in `--workdir`, and as the run left it; or, with
lessons given, as the base with each of them, all at once over one value table.
Without a question it reads one from each line of its input.

A text that ends in '?' is asked as in the evaluation, 'Question: ... Answer:';
any other is continued. The slots that answered are those read at the last token
of the prompt and at the tokens of the answer, over all memory layers, with
their shares of the weight; a * marks those that the lesson changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import functools
import pathlib
import sys

from flax import nnx
import jax
import numpy as np

from smft_jax import lesson as lesson_lib
from smft_jax import memory
from smft_jax import overlay as overlay_lib
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.data import batches
from smft_jax.data import encoding
from smft_jax.data import task
from smft_jax.data import tokenizers
from smft_jax.data.world import words as world_words
from smft_jax.evaluation import evaluate
from smft_jax.lesson import __main__ as lesson_program
from smft_jax.runs import base as base_lib
from smft_jax.runs import finetune
from smft_jax.runs import workdir as workdir_lib
from smft_jax.runtime import arguments as arguments_lib
from smft_jax.runtime import program
from smft_jax.store import checksum
from smft_jax.training import step as step_lib

# Slots shown of an answer.
_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
  """What one model answered.

  Attributes:
    text: The answer.
    slots: int [S], the slots that it was read from, heaviest first.
    shares: float [S], their shares of the weight of all reads; they sum to 1.
  """

  text: str
  slots: np.ndarray
  shares: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """Some versions of one model, which are asked at once.

  Attributes:
    names: What to call each version.
    changed: Of each the slots that a lesson changed.
    evaluator: Asks; its batch has a row for each version.
    params: Its parameters.
    overlay: What the versions read in place of the table's rows.
  """

  names: tuple[str, ...]
  changed: tuple[np.ndarray, ...]
  evaluator: evaluate.Evaluator
  params: nnx.State
  overlay: overlay_lib.Overlay | None = None

  def ask(self, prompt: str) -> list[Answer]:
    """Each version's answer to a prompt."""
    question = task.Question(
      prompt=prompt, answers=('?',), phrasing='', seen=False, fact=''
    )
    texts = [
      text.strip()
      for text in self.evaluator.answers(
        self.params, [question] * len(self.names), self.overlay
      )
    ]
    rows = encoding.tokenize_prompts(
      [f'{prompt} {text}'.strip() for text in texts], self.evaluator.tokenizer
    )
    (asked,) = encoding.tokenize_prompts(
      [prompt], self.evaluator.tokenizer
    ).lengths
    length = batches.bucket_length(rows.longest)
    batch = batches.pad(rows, length, self.evaluator.tokenizer.pad_id)
    slot_ids, weights = jax.device_get(
      _accesses(
        self.evaluator.graphdef,
        self.params,
        batch.tokens,
        batch.mask,
        self.overlay,
      )
    )
    answering = batch.mask & (np.arange(length) >= asked - 1)
    return [
      _answer(text, slot_ids[i][answering[i]], weights[i][answering[i]])
      for i, text in enumerate(texts)
    ]


def with_lessons(
  experiment: config_lib.Experiment,
  base: base_lib.Base,
  lessons: Sequence[lesson_lib.Lesson],
  names: Sequence[str],
) -> Model:
  """The base and the base with each lesson, over one table.

  Raises:
    UserError: If a lesson is of another base.
  """
  _, fingerprint = lesson_program.identity(base.params)
  for lesson, name in zip(lessons, names, strict=True):
    try:
      lesson_lib.check_base(lesson, fingerprint)
      lesson_lib.check_rows(step_lib.table(base.params), lesson)
    except ValueError as error:
      raise schema.UserError(f'{name}: {error}') from None
  which = range(-1, len(lessons))
  return Model(
    names=('base', *names),
    changed=(np.zeros(0, np.int32), *(lesson.slots for lesson in lessons)),
    evaluator=_evaluator(experiment, base, base.graphdef, len(which)),
    params=base.params,
    overlay=lesson_lib.overlay(lessons, which),
  )


def before_and_after(
  experiment: config_lib.Experiment, base: base_lib.Base, workdir: pathlib.Path
) -> list[Model]:
  """The base of a run, and what the run made of it, by whatever method."""
  none = np.zeros(0, np.int32)
  models = [
    Model(
      names=('base',),
      changed=(none,),
      evaluator=_evaluator(experiment, base, base.graphdef, 1),
      params=base.params,
    )
  ]
  if experiment.stream is not None:
    state = finetune.last_state(experiment, base, workdir)
    differing = checksum.differing_rows(
      step_lib.table(base.params), step_lib.table(state.params)
    )
    models.append(
      Model(
        names=(str(workdir),),
        changed=(np.flatnonzero(np.asarray(differing)),),
        evaluator=_evaluator(experiment, base, state.graphdef, 1),
        params=state.params,
      )
    )
  return models


def prompt_of(text: str) -> str:
  """What a model is given of what a person typed.

  Example:
    >>> prompt_of('Where was Ada born?'), prompt_of('Ada was born in')
    ('Question: Where was Ada born? Answer:', 'Ada was born in')
  """
  if text.endswith('?'):
    return world_words.QUESTION_FORMAT.format(question=text)
  return text


def lines(models: Iterable[Model], text: str) -> list[str]:
  """The answers to what a person typed, and the slots behind them."""
  prompt = prompt_of(text)
  asked = [
    (name, changed, answer)
    for model in models
    for name, changed, answer in zip(
      model.names, model.changed, model.ask(prompt), strict=True
    )
  ]
  width = max(len(name) for name, _, _ in asked)
  told = []
  for name, changed, answer in asked:
    told.append(f'{name:<{width}}  {answer.text or "(nothing)"}')
    is_changed = np.isin(answer.slots, changed)
    told.append(f'{"":<{width}}  slots {_heaviest(answer, is_changed)}')
    if len(changed):
      share = np.sum(answer.shares[is_changed])
      heaviest = _heaviest(answer, is_changed, of=is_changed)
      told.append(
        f'{"":<{width}}  {share:.0%} on changed slots: {heaviest or "none"}'
      )
  return told


def _heaviest(
  answer: Answer, is_changed: np.ndarray, of: np.ndarray | None = None
) -> str:
  """The heaviest slots of an answer, or of some of them, in words."""
  chosen = np.arange(len(answer.slots)) if of is None else np.flatnonzero(of)
  return ', '.join(
    f'{answer.slots[i]}{"*" if is_changed[i] else ""} {answer.shares[i]:.1%}'
    for i in chosen[:_SHOWN]
  )


def main(argv: list[str]) -> None:
  """The program."""
  parser = arguments_lib.Parser(
    prog='python -m smft_jax.ask',
    description='Asks a model, before and after it learned.',
  )
  parser.add_argument('question', nargs='?', help='none: a line of input each')
  parser.add_argument(
    '--workdir', required=True, help='where a run of smft_jax.train wrote'
  )
  parser.add_argument(
    '--lesson', action='append', default=[], help='its file; may be repeated'
  )
  arguments = parser.parse(argv)
  workdir = pathlib.Path(arguments.workdir)
  if arguments.question is not None and not arguments.question.strip():
    raise schema.UserError('the question is empty')
  lessons = [
    lesson_program.read(pathlib.Path(name)) for name in arguments.lesson
  ]
  experiment = workdir_lib.experiment_of(workdir)
  base = workdir_lib.base_of(experiment)
  if lessons:
    models = [with_lessons(experiment, base, lessons, arguments.lesson)]
  else:
    models = before_and_after(experiment, base, workdir)
  asked = [arguments.question] if arguments.question else _typed()
  for text in asked:
    for unknown in _unknown_words(base.tokenizer, text):
      print(f'(the model has no word {unknown!r})')
    print('\n'.join(lines(models, text.strip())), flush=True)


def _typed() -> Iterable[str]:
  """The lines of the input that are not empty, up to its end."""
  while True:
    if sys.stdin.isatty():
      print('> ', end='', flush=True)
    line = sys.stdin.readline()
    if not line:
      return
    if line.strip():
      yield line.strip()


def _unknown_words(tokenizer: tokenizers.Tokenizer, text: str) -> list[str]:
  """Words that a word-level tokenizer cannot tell from any other."""
  unknown = tokenizer.inner.token_to_id(tokenizers.UNKNOWN)
  ids, offsets = tokenizer.encode_with_offsets(text)
  return [
    text[slice(*span)]
    for token, span in zip(ids, offsets, strict=True)
    if token == unknown
  ]


def _evaluator(experiment, base, graphdef, size: int) -> evaluate.Evaluator:
  return evaluate.Evaluator(
    graphdef=graphdef,
    tokenizer=base.tokenizer,
    batch_size=size,
    max_length=experiment.base.max_length,
    max_answer_tokens=experiment.evaluation.max_answer_tokens,
  )


@functools.partial(jax.jit, static_argnums=0)
def _accesses(graphdef, params, tokens, mask, overlay):
  """Slot ids and weights [B, L, A] of all memory layers."""
  forward = nnx.capture(
    nnx.merge(graphdef, params), memory.SlotIds, memory.SlotWeights
  )
  more = {} if overlay is None else {'overlay': overlay}
  _, *sown = forward(tokens, mask, **more)
  return [
    jax.numpy.concatenate(jax.tree.leaves(of_a_kind), axis=-1)
    for of_a_kind in sown
  ]


def _answer(text: str, slot_ids: np.ndarray, weights: np.ndarray) -> Answer:
  """The answer read with these accesses [tokens, A]."""
  slots, place = np.unique(slot_ids, return_inverse=True)
  shares = np.bincount(place.ravel(), weights.ravel().astype(np.float64))
  order = np.argsort(-shares, kind='stable')
  return Answer(
    text=text, slots=slots[order], shares=shares[order] / shares.sum()
  )


if __name__ == '__main__':
  sys.exit(program.run(main))
