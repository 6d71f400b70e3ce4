"""What a base of real text knows, and what is measured beside a stream.

The base is pretrained on running text (WikiText-2), on the paragraphs of some
SQuAD articles with a few of their questions, and on questions with their
answers, so that it knows what a question looks like. Held out are other
running text, questions and multiple choices. What is streamed after it is up
to `data.documents` and `data.facts`.

WikiText is taken as it was published, with ` = Title = ` headings, `<unk>`, `
@-@ ` and spaces around punctuation: its loss is then that of the known corpus
and no rule of ours stands between. Its articles are one Text each, longer than
any sequence; `data.batches` splits them.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Literal

from smft_jax import schema
from smft_jax.data import augment
from smft_jax.data import task
from smft_jax.data import tokenizers
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class RealTextConfig:
  """Settings that streams of real text share. Sources: see `data.sources`.

  Attributes:
    seed: What retellings and wordings are drawn from.
    data_dir: The TFDS data directory, with data sets in array_record format.
    running_text: Source of running text; pretrained on.
    held_out_text: Source of running text; measured.
    known_set: Source of documents with questions; pretrained on.
    known_questions: Sources of questions; pretrained on with their answers.
    held_out_questions: Sources of questions; measured.
    held_out_choices: Sources of multiple choices; measured.
    questions_per_paragraph: Questions of each known document that are
      pretrained on.
    num_known_questions: How many of those are asked again, as held-out set.
    shots: Examples before each held-out question: the first ones of its
      source, which are then not asked.
    augmentations: Texts of a streamed document that training may see.
    augmentations_file: Such texts by a language model, see `data.augment`;
      documents that it does not name are retold by rule. '' for none.
    bad_input: Whether a bad row of a source is refused, or skipped and counted.
    tokenizer: A Hugging Face folder, or a tokenizer.json, whose tokenizer to
      take; '' for one that is trained.
    tokenizer_vocab_size: Size of the one that is trained, a byte-level BPE of
      what the base is pretrained on.

  Raises:
    UserError: A value is out of range.
  """

  seed: int = 0
  data_dir: str
  running_text: str = 'wikitext2:train'
  held_out_text: str = 'wikitext2:test'
  known_set: str = 'squad_train44:train'
  known_questions: tuple[str, ...] = ()
  held_out_questions: tuple[str, ...] = ()
  held_out_choices: tuple[str, ...] = ()
  questions_per_paragraph: int = 1
  num_known_questions: int = 300
  shots: int = 0
  augmentations: int = 16
  augmentations_file: str = ''
  bad_input: Literal['refuse', 'skip'] = 'refuse'
  tokenizer: str = ''
  tokenizer_vocab_size: int = 8192

  def __post_init__(self) -> None:
    schema.at_least(1, self, 'augmentations')
    schema.at_least(
      0,
      self,
      'seed',
      'questions_per_paragraph',
      'num_known_questions',
      'shots',
    )
    # 256 bytes and the special tokens are the least that spells any text.
    schema.at_least(260, self, 'tokenizer_vocab_size')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
  """What a base is pretrained on.

  Attributes:
    texts: All of it.
    documents: Texts of the documents among it.
    asked: The questions on them, answers included in `texts`.
    questions: The questions that stand alone, likewise.
    counts: How many of each, for the record.
  """

  texts: tuple[task.Text, ...]
  documents: frozenset[str]
  asked: tuple[task.Question, ...]
  questions: tuple[task.Question, ...]
  counts: dict[str, int]


def known(config: RealTextConfig, problems: problems_lib.Problems) -> Known:
  """Reads what the base is pretrained on.

  Args:
    config: What to read.
    problems: Takes what is wrong with it.

  Raises:
    UserError: Data or its tokenizer is missing or broken; one line that names
      it.
  """
  if config.tokenizer:
    tokenizers.read(pathlib.Path(config.tokenizer))  # before hours of training
  articles = sources.read_texts(
    config.running_text, config.data_dir, problems=problems
  )
  paragraphs = sources.read_documents(
    config.known_set, config.data_dir, problems=problems
  )
  asked = [
    question(q, seen=True)
    for p in paragraphs
    for q in p.questions[: config.questions_per_paragraph]
  ]
  alone = [
    question(q, seen=True)
    for name in config.known_questions
    for q in sources.read_questions(name, config.data_dir, problems=problems)
  ]
  return Known(
    texts=(
      *(task.Text(text=a.text) for a in articles),
      *(task.Text(text=p.text) for p in paragraphs),
      *(q.full_text() for q in asked),
      *(q.full_text() for q in alone),
    ),
    documents=frozenset(p.text for p in paragraphs),
    asked=tuple(asked),
    questions=tuple(alone),
    counts={
      'pretraining_articles': len(articles),
      'pretraining_paragraphs': len(paragraphs),
      'pretraining_questions': len(asked) + len(alone),
    },
  )


def held_out(
  config: RealTextConfig, found: Known, problems: problems_lib.Problems
) -> task.Task:
  """A task without documents: what is pretrained on, and what is measured.

  Args:
    config: What to read.
    found: What the base knows.
    problems: Takes what is wrong with it.

  Returns:
    A task whose sets are named after their sources: the texts 'wikitext2_test',
    the questions 'natural_questions_open_validation' and the like, and 'known',
    which were asked in pretraining.

  Raises:
    UserError: Data is missing or broken, or pretrained on; one line that names
      it.
  """
  questions = {'known': every_nth(found.asked, config.num_known_questions)}
  trained = {q.prompt for q in (*found.asked, *found.questions)}
  for name in config.held_out_questions:
    members = [
      question(q, seen=False)
      for q in sources.read_questions(name, config.data_dir, problems=problems)
    ]
    # Sets share a few questions; those are no measure of what is not trained.
    members = [q for q in members if q.prompt not in trained]
    asked = members[config.shots :]
    if not asked:
      raise schema.UserError(
        f'{name} has {len(members)} questions that the base was not trained'
        f' on, too few with config.data.shots = {config.shots}'
      )
    questions[set_name(name)] = task.with_examples(
      asked, members[: config.shots], config.shots
    )
  articles = sources.read_texts(
    config.held_out_text, config.data_dir, problems=problems
  )
  choices = {
    set_name(name): tuple(
      task.Choice(prompt=c.prompt, endings=c.endings, label=c.label)
      for c in sources.read_choices(name, config.data_dir, problems=problems)
    )
    for name in config.held_out_choices
  }
  return task.Task(
    pretraining=found.texts,
    documents=(),
    questions={name: members for name, members in questions.items() if members},
    texts={
      set_name(config.held_out_text): tuple(
        task.Text(text=a.text) for a in articles
      )
    },
    choices=choices,
    counts=found.counts,
  )


def question(found: sources.QuestionAnswer, *, seen: bool) -> task.Question:
  """A question as models are asked it.

  A worked answer, as GSM8K has them, is the canonical one: its likelihood is
  that of the whole solution.
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
  )


def read_augmentations(
  config: RealTextConfig, ids: Sequence[str]
) -> dict[str, list[augment.Augmentation]]:
  """The texts of `config.augmentations_file`, by the document they tell again.

  Raises:
    UserError: The file is missing or broken, or names a document that is not
      streamed.
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
  return found


def every_nth(
  questions: Sequence[task.Question], count: int
) -> tuple[task.Question, ...]:
  """At most `count` of the questions, evenly spaced."""
  count = min(count, len(questions))
  return tuple(questions[i * len(questions) // count] for i in range(count))


def set_name(source: str) -> str:
  """What a source is called in results.

  Example:
    >>> set_name('squad/v1.1:validation'), set_name('./my/notes.jsonl')
    ('squad_v1.1_validation', 'notes')
  """
  path = pathlib.Path(source)
  if path.suffix in ('.jsonl', '.json', '.txt'):
    return path.stem
  return source.replace('/', '_').replace(':', '_')
