"""Pretraining texts and held-out sets of experiments on real text.

The base is pretrained on running text (WikiText-2), on paragraphs of SQuAD with
a few of their questions, and on answered questions, which show it the form of a
question. Other running text, questions and multiple choices are held out.
`data.documents` and `data.facts` add the target stream.

WikiText is left as published, with ` = Title = ` headings, `<unk>`, ` @-@ ` and
spaces around punctuation, so that its loss is comparable. Each article is one
Text, longer than a sequence; `encoding.tokenize` splits it.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Literal, TypeVar

from smft_jax import schema
from smft_jax.data import augment
from smft_jax.data import prepared
from smft_jax.data import task
from smft_jax.data import tokenizers
from smft_jax.data.sources import files
from smft_jax.data.sources import items
from smft_jax.data.sources import sources
from smft_jax.store import paths

_Item = TypeVar('_Item')

# Names of sets that are measured, or corpora, besides those of sources.
_SETS = (
  'known',
  'never_seen',
  'never_seen_paragraphs',
  'general_questions',
  'general_prose',
  'general_text',
  'pretraining',
  'stream',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourcesConfig:
  """Sources of texts and questions for a base; see `data.sources`.

  Attributes:
    seed: Seed of all that is drawn: people, retellings, wordings.
    data_dir: The TFDS data directory, with data sets in array_record format;
      '' for none.
    running_text: Source of running text to train on, or a folder of prepared
      rows (`python -m smft_jax.prepare`); '' for none.
    held_out_text: Source of running text to measure; '' for none.
    known_questions: Sources of questions to train on, with their answers.
    held_out_questions: Sources of questions to measure.
    held_out_choices: Sources of multiple choices to measure.
    bad_input: Whether to refuse a bad row of a source, or to skip and count it.

  Raises:
    UserError: A value is out of range, or the results would call two held-out
      sets by one name.
  """

  seed: int = 0
  data_dir: str = ''
  running_text: str = 'wikitext2:train'
  held_out_text: str = 'wikitext2:test'
  known_questions: tuple[str, ...] = ()
  held_out_questions: tuple[str, ...] = ()
  held_out_choices: tuple[str, ...] = ()
  bad_input: Literal['refuse', 'skip'] = 'refuse'

  def __post_init__(self) -> None:
    schema.at_least(0, self, 'seed')
    questions, choices = self.held_out_questions, self.held_out_choices
    _check_set_names([self.held_out_text, *questions, *choices])


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealTextConfig(SourcesConfig):
  """Settings common to streams of real text, besides those of `SourcesConfig`.

  Attributes:
    general: Whether the base is a pretrained model that knows the world. Its
      background and held-out sets are then those of `data.background`, which
      ship with the package; data sets of `data_dir` are added if it is given.
    known_set: Source of documents with questions to pretrain on; '' for none.
    questions_per_paragraph: Questions of each known document to pretrain on.
    num_known_questions: Size of the set 'known': questions on known documents.
    augmentations: Texts of a streamed document that training may see.
    augmentations_file: File of such texts, see `data.augment`; documents that
      it lacks are retold by rule. '' for none.
    tokenizer: A Hugging Face folder or tokenizer.json to take the tokenizer
      from; '' takes that of prepared rows, or trains one.
    tokenizer_vocab_size: Size of a trained tokenizer, a byte-level BPE of the
      pretraining texts.

  Raises:
    UserError: A value is out of range.
  """

  general: bool = False
  known_set: str = 'squad_train44:train'
  questions_per_paragraph: int = 1
  num_known_questions: int = 300
  augmentations: int = 16
  augmentations_file: str = ''
  tokenizer: str = ''
  tokenizer_vocab_size: int = 8192

  def __post_init__(self) -> None:
    super().__post_init__()
    schema.at_least(1, self, 'augmentations')
    schema.at_least(0, self, 'questions_per_paragraph', 'num_known_questions')
    # 256 bytes and the special tokens.
    schema.at_least(260, self, 'tokenizer_vocab_size')


def base_task(
  config: RealTextConfig, reader: sources.Reader
) -> tuple[task.Task, frozenset[str]]:
  """Makes a task without documents: pretraining texts and held-out sets.

  Args:
    config: The sources.
    reader: Reads them.

  Returns:
    The task, and the prompts of all questions of pretraining. Held-out sets are
    named after their sources, such as the texts 'wikitext2_test' and the
    questions 'natural_questions_open_validation'; the set 'known' has questions
    of pretraining.

  Raises:
    UserError: Data or the tokenizer is missing or broken, or all questions of a
      held-out set were pretrained on.
  """
  if config.tokenizer:
    tokenizers.read(paths.expand(config.tokenizer))  # fails early
  rows, articles = None, []
  if prepared.is_folder(config.running_text):
    rows = prepared.read(config.running_text)
  elif config.running_text:
    articles = reader.texts(config.running_text)
  paragraphs = reader.documents(config.known_set) if config.known_set else []
  asked = [
    question(q, seen=True)
    for p in paragraphs
    for q in p.questions[: config.questions_per_paragraph]
  ]
  separate = [
    question(q, seen=True)
    for name in config.known_questions
    for q in reader.questions(name)
  ]
  prompts = frozenset(q.prompt for q in asked + separate)
  questions = {
    'known': evenly(asked, config.num_known_questions),
    **held_out_questions(config.held_out_questions, reader, prompts),
  }
  return (
    task.Task(
      pretraining=(
        *(task.Text(text=document.text) for document in articles + paragraphs),
        *(q.full_text() for q in asked + separate),
      ),
      documents=(),
      questions={name: found for name, found in questions.items() if found},
      texts={
        set_name(name): tuple(
          task.Text(text=article.text) for article in reader.texts(name)
        )
        for name in filter(None, [config.held_out_text])
      },
      choices={
        set_name(name): tuple(reader.choices(name))
        for name in config.held_out_choices
      },
      counts={
        'pretraining_articles': len(articles),
        'pretraining_paragraphs': len(paragraphs),
        'pretraining_questions': len(asked) + len(separate),
        **({} if rows is None else {'prepared_rows': len(rows)}),
      },
      prepared=rows,
    ),
    prompts,
  )


def held_out_questions(
  names: Sequence[str], reader: sources.Reader, prompts: frozenset[str]
) -> dict[str, tuple[task.Question, ...]]:
  """Reads sets of questions, without those whose prompts are trained on.

  Raises:
    UserError: A source is missing or broken, or nothing of it is left.
  """
  questions = {}
  for name in names:
    found = [question(q, seen=False) for q in reader.questions(name)]
    # Data sets share a few questions.
    new = tuple(q for q in found if q.prompt not in prompts)
    if not new:
      raise schema.UserError(
        f'{name} has no question outside the pretraining data'
      )
    questions[set_name(name)] = new
  return questions


def question(found: items.QuestionAnswer, *, seen: bool) -> task.Question:
  """Formats a question as a prompt.

  The canonical answer of GSM8K is the whole solution.
  """
  answers = found.answers
  if found.working:
    answers = (f'{found.working} #### {answers[0]}', *answers)
  return task.Question(
    prompt=f'Question: {found.question.strip()} Answer:',
    answers=answers,
    phrasing='question',
    seen=seen,
    fact=found.id,
    place=found.place,
  )


def read_augmentations(
  config: RealTextConfig, ids: Sequence[str]
) -> dict[str, list[task.Text]]:
  """Reads `config.augmentations_file`, by document.

  Raises:
    UserError: The file is missing or malformed, or names a document that is not
      in the stream.
  """
  if not config.augmentations_file:
    return {}
  found = augment.read(config.augmentations_file)
  for source in found:
    if source not in ids:
      close = schema.nearest(source, ids)
      hint = f'did you mean {close!r}?' if close else f'the first is {ids[0]!r}'
      raise schema.UserError(
        f'{config.augmentations_file} retells {source!r}, which is not'
        f' streamed; {hint}'
      )
  return {
    source: [task.Text(text=one.text, answer=one.answer) for one in made]
    for source, made in found.items()
  }


def evenly(items: Sequence[_Item], count: int) -> tuple[_Item, ...]:
  """Takes at most `count` of the items, evenly spaced."""
  count = min(count, len(items))
  return tuple(items[i * len(items) // count] for i in range(count))


def _check_set_names(held_out: Sequence[str]) -> None:
  """Checks that the results have a name for each held-out source.

  Raises:
    UserError: Two have the same name, or one has that of another set.
  """
  found: dict[str, str] = {}
  for source in filter(None, held_out):
    name = set_name(source)
    if name in found:
      raise schema.UserError(
        f'{found[name]} and {source} are both {name!r} in the results: rename'
        ' one of them'
      )
    if name in _SETS or name.startswith('target'):
      raise schema.UserError(
        f'{source} is {name!r} in the results, which is the name of another'
        ' set: rename it'
      )
    found[name] = source


def set_name(source: str) -> str:
  """Returns the name of a source in results.

  Example:
    >>> set_name('squad/v1.1:validation'), set_name('./my/notes.jsonl')
    ('squad_v1.1_validation', 'notes')
  """
  if files.kind_of(source):
    return pathlib.PurePath(files.split(source)[0]).name
  return source.replace('/', '_').replace(':', '_')
