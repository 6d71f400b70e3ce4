"""The evaluation sets of a run, as the model is asked them.

`check` finds what cannot be asked before a model is made: it reads no weights.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools

from flax import nnx
import numpy as np

from smft_jax import hf
from smft_jax import schema
from smft_jax.config import experiment as config_lib
from smft_jax.config import sections
from smft_jax.data import chat as chat_lib
from smft_jax.data import encoding
from smft_jax.data import task as task_lib
from smft_jax.data import tokenizers
from smft_jax.evaluation import evaluate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sets:
  """What a run measures, by name.

  Attributes:
    questions: Question sets.
    texts: Text sets.
    choices: Sets of choices.
    documents: The streamed documents.
    about: For each target question the index of its document, by set.
  """

  questions: dict[str, tuple[task_lib.Question, ...]]
  texts: dict[str, tuple[task_lib.Text, ...]]
  choices: dict[str, tuple[task_lib.Choice, ...]]
  documents: tuple[task_lib.Document, ...]
  about: dict[str, np.ndarray]


def draw(
  task: task_lib.Task,
  settings: sections.EvaluationConfig,
  *,
  max_documents: int | None,
  seed: int,
) -> Sets:
  """Draws the sets of a run from its task.

  Args:
    task: The data.
    settings: What to measure.
    max_documents: Documents that are streamed; None streams all.
    seed: Seed of the choice of entries.

  Raises:
    UserError: There are too few questions for few-shot prompts.
  """
  documents = task.documents[:max_documents]
  measured = _take(
    [*enumerate(documents)], size=settings.max_documents, seed=seed
  )
  asked = [(q, i) for i, d in measured for q in d.questions]
  targets = {
    'target': [(q, i) for q, i in asked if q.seen],
    'target_unseen_phrasing': [(q, i) for q, i in asked if not q.seen],
  }
  take = functools.partial(_take, size=settings.max_entries, seed=seed)
  targets = {name: [*take(pairs)] for name, pairs in targets.items() if pairs}
  questions = {name: tuple(take(qs)) for name, qs in task.questions.items()}
  texts = {name: tuple(take(entries)) for name, entries in task.texts.items()}
  shown = {}
  if targets and settings.shots and not task.are_edits:
    # What was taught should also be known behind examples, as `ask` asks.
    pairs = [*targets.values()][-1]
    behind = prompted([q for q, _ in pairs], task, settings)
    shown['target_after_examples'] = [
      (q, i) for q, (_, i) in zip(behind, pairs, strict=True)
    ]
  if documents and 'target' not in targets:
    texts['target'] = tuple(take([t for _, d in measured for t in d.texts]))
  return Sets(
    questions={
      **{
        name: prompted(entries, task, settings, name)
        for name, entries in questions.items()
      },
      # Asked as the documents word them, and once more after the examples.
      **{
        name: tuple(q for q, _ in pairs)
        for name, pairs in (targets | shown).items()
      },
    },
    texts=texts,
    choices={name: tuple(take(cs)) for name, cs in task.choices.items()},
    documents=documents,
    about={
      name: np.array([i for _, i in pairs])
      for name, pairs in (targets | shown).items()
    },
  )


def shortened(
  texts: Sequence[task_lib.Text],
  tokenizer: tokenizers.Tokenizer,
  *,
  max_length: int,
  max_rows: int | None,
  seed: int,
) -> tuple[task_lib.Text, ...]:
  """Takes texts at random until they fill a number of rows.

  A text that does not fit into what is left of them is cut at its end, so that
  a few long articles do not take hours to measure.

  Args:
    texts: The texts.
    tokenizer: The tokenizer.
    max_length: Most tokens in a row.
    max_rows: Most rows; None takes all texts.
    seed: Seed of the choice.

  Returns:
    The texts, in order.
  """
  if max_rows is None:
    return tuple(texts)
  taken, left = {}, max_rows
  for index in np.random.default_rng(seed).permutation(len(texts)).tolist():
    text = texts[index]
    rows = len(encoding.tokenize([text], tokenizer, max_length=max_length))
    if rows > left:
      # A row has a beginning, and the last one an end.
      _, spans = tokenizer.encode_with_offsets(text.text)
      end = spans[max(1, left * (max_length - 2)) - 1][1]
      text = task_lib.Text(text=text.text[:end])
    taken[index] = text
    left -= rows
    if left <= 0:
      break
  return tuple(taken[index] for index in sorted(taken))


def prompted(
  questions: Sequence[task_lib.Question],
  task: task_lib.Task,
  settings: sections.EvaluationConfig,
  name: str = '',
) -> tuple[task_lib.Question, ...]:
  """Puts solved questions of a task before questions, if settings ask for it.

  Args:
    questions: The questions.
    task: The task.
    settings: How many to put before each.
    name: The set of the questions, whose own go before those of other sets.

  Raises:
    UserError: The task has too few held-out questions.
  """
  names = sorted(task.questions, key=lambda other: other != name)
  examples = [q for other in names for q in task.questions[other]]
  try:
    return task_lib.with_examples(questions, examples, settings.shots)
  except schema.UserError as error:
    raise schema.UserError(f'config.evaluation.{error}') from None


def evaluator(
  settings: sections.EvaluationConfig,
  tokenizer: tokenizers.Tokenizer,
  graphdef: nnx.GraphDef,
  max_length: int,
  vocab_size: int | None = None,
) -> evaluate.Evaluator:
  """Makes what measures a model's parameters.

  Args:
    settings: How to measure.
    tokenizer: The model's tokenizer.
    graphdef: The model.
    max_length: Most tokens in a row.
    vocab_size: Tokens of the model, if `check` did not see these settings.

  Raises:
    UserError: Questions are asked in a chat that the tokenizer does not have.
  """
  return evaluate.Evaluator(
    graphdef=graphdef,
    tokenizer=tokenizer,
    batch_size=settings.batch_size,
    max_length=max_length,
    max_answer_tokens=settings.max_answer_tokens,
    answer_end=settings.answer_end,
    chat=_chat(settings, tokenizer, vocab_size),
  )


def check(
  experiment: config_lib.Experiment,
  task: task_lib.Task,
  tokenizer: tokenizers.Tokenizer,
) -> None:
  """Checks that every question and choice of a run can be asked.

  Raises:
    UserError: One cannot; the line names the setting and where it was read.
  """
  settings, stream = experiment.evaluation, experiment.stream
  path = experiment.base.path
  vocab_size = hf.load_config(path).vocab_size if path else None
  chat = _chat(settings, tokenizer, vocab_size)
  max_length = experiment.base.max_length
  drawn = draw(
    task,
    settings,
    max_documents=stream.max_documents if stream else None,
    seed=experiment.seed,
  )
  for name, questions in drawn.questions.items():
    _check(
      # Less than a few-shot prompt would be another prompt.
      functools.partial(
        encoding.tokenize_questions, whole=bool(settings.shots), chat=chat
      ),
      name,
      questions,
      tokenizer,
      max_length,
    )
  for name, choices in drawn.choices.items():
    _check(encoding.tokenize_choices, name, choices, tokenizer, max_length)
  if task.are_edits:
    # Every edit is asked, and none taught in pieces.
    edits = drawn.documents
    whole = functools.partial(encoding.tokenize_questions, whole=True)
    asked = [q for edit in edits for q in (*edit.questions, *edit.kept)]
    _check(whole, 'edits', asked, tokenizer, max_length)
    if stream and stream.max_length:
      taught = [q for q in asked if q.seen]
      _check(whole, 'edits', taught, tokenizer, stream.max_length, 'stream')


def _check(
  tokenize, name, entries, tokenizer, max_length, section='base'
) -> None:
  """Names the set and the first entry of it that cannot be encoded."""
  try:
    tokenize(entries, tokenizer, max_length=max_length)
  except schema.UserError:
    for entry in entries:
      try:
        tokenize([entry], tokenizer, max_length=max_length)
      except schema.UserError as error:
        place = getattr(entry, 'place', '') or f'set {name!r}'
        raise schema.UserError(
          f'{place}: config.{section}.{error} to {entry.prompt[-60:]!r}'
        ) from None


def _chat(
  settings: sections.EvaluationConfig,
  tokenizer: tokenizers.Tokenizer,
  vocab_size: int | None,
) -> chat_lib.Chat | None:
  if settings.prompt_format != 'chat':
    return None
  try:
    return chat_lib.make(tokenizer, vocab_size)
  except schema.UserError as error:
    raise schema.UserError(
      f"config.evaluation.prompt_format = 'chat', but {error}; take 'plain' or"
      " 'few_shot'"
    ) from None


def _take(entries: Sequence, *, size: int | None, seed: int) -> Sequence:
  """Draws at most `size` entries, in order; the seed decides which."""
  if size is None or len(entries) <= size:
    return entries
  rng = np.random.default_rng(seed)
  chosen = np.sort(rng.choice(len(entries), size, replace=False))
  return [entries[i] for i in chosen]
