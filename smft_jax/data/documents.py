"""Real documents: a base that knows some text, and a stream of new pages.

The base is pretrained on running text (WikiText-2) and on the paragraphs of
some SQuAD articles, with a few of their questions so that it knows what a
question looks like. The stream is paragraphs of articles that are in neither.
What is trained on of a streamed paragraph are retellings of it by rule
(`data.sentences`); its questions are never trained on.

WikiText is taken as it was published, with ` = Title = ` headings, `<unk>`, `
@-@ ` and spaces around punctuation: its loss is then that of the known corpus
and no rule of ours stands between. Its articles are one Text each, longer than
any sequence; `data.batches` splits them.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Literal

from smft_jax import schema
from smft_jax.data import problems as problems_lib
from smft_jax.data import sentences
from smft_jax.data import sources
from smft_jax.data import task


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentsConfig:
  """Which documents a base is made of, and which are streamed after it.

  Attributes:
    kind: 'squad' streams paragraphs of `stream_set`, 'jsonl' the documents of
      `documents_file`, in its order. The base is the same.
    seed: What the retellings are drawn from.
    data_dir: The TFDS data directory, with data sets in array_record format.
    running_text: Data set with a `text` field; its train split is pretrained
      on, its test split is held out.
    known_set: Data set in the features of SQuAD whose train split is
      pretrained on.
    stream_set: Data set in the features of SQuAD whose validation split is
      streamed; none of these may be in `known_set`.
    documents_file: JSON lines, see `sources.read_documents`; for 'jsonl' only.
    num_documents: Streamed paragraphs of 'squad', spread evenly over all its
      articles; a file of documents is always streamed whole.
    num_control: Paragraphs of the same articles that are kept out of the
      stream and only measured; for 'squad' only.
    questions_per_paragraph: Questions of each known paragraph that are
      pretrained on.
    num_known_questions: How many of those are asked again, as held-out set.
    augmentations: Retellings of a streamed document that training may see.
    tokenizer_vocab_size: Size of the byte-level BPE, trained on what the base
      is pretrained on.

  Raises:
    UserError: A value is out of range.
  """

  kind: Literal['squad', 'jsonl'] = 'squad'
  seed: int = 0
  data_dir: str
  running_text: str = 'wikitext2'
  known_set: str = 'squad_train44'
  stream_set: str = 'squad/v1.1'
  documents_file: str = ''
  num_documents: int = 200
  num_control: int = 100
  questions_per_paragraph: int = 1
  num_known_questions: int = 300
  augmentations: int = 16
  tokenizer_vocab_size: int = 8192

  def __post_init__(self) -> None:
    schema.at_least(1, self, 'num_documents', 'augmentations')
    schema.at_least(
      0,
      self,
      'seed',
      'num_control',
      'questions_per_paragraph',
      'num_known_questions',
    )
    # 256 bytes and the special tokens are the least that spells any text.
    schema.at_least(260, self, 'tokenizer_vocab_size')
    if self.kind == 'jsonl' and not self.documents_file:
      raise schema.UserError(
        "documents_file is empty, and kind = 'jsonl' streams the documents in"
        ' it: give the path of a file of JSON lines'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Paragraph:
  """A paragraph of an article and its questions, ordered by id."""

  id: str
  title: str
  text: str
  questions: tuple[task.Question, ...]


def make_task(config: DocumentsConfig) -> task.Task:
  """Reads the data sets and puts the experiment together.

  Args:
    config: What to read and how much of it.

  Returns:
    A task whose evaluation sets are the texts 'wikitext2_test' (named after
    `running_text`) and 'never_seen_paragraphs', and the questions 'known'
    (asked in pretraining) and 'never_seen' (of the paragraphs that are never
    seen). A set without members is left out. It depends only on the config
    and the data, not on the order of examples in the files.

  Raises:
    UserError: Data is missing, broken or too little; one line that names it.
  """
  problems = problems_lib.Problems('refuse')
  control: Sequence[_Paragraph] = ()
  # The user's own file first: it is the likeliest to be wrong, and quick.
  if config.kind == 'jsonl':
    streamed = _paragraphs(config.documents_file, config, problems, seen=False)
  articles = sources.read_texts(
    f'{config.running_text}:train', config.data_dir, problems=problems
  )
  held_out = sources.read_texts(
    f'{config.running_text}:test', config.data_dir, problems=problems
  )
  known = _paragraphs(f'{config.known_set}:train', config, problems, seen=True)
  if config.kind == 'squad':
    new = _paragraphs(
      f'{config.stream_set}:validation', config, problems, seen=False
    )
    wanted = config.num_documents + config.num_control
    if wanted > len(new):
      raise schema.UserError(
        f'config.data.num_documents + num_control = {wanted} is more than the'
        f' {len(new)} paragraphs of {config.stream_set}'
      )
    chosen = _spread(new, wanted)
    # The first paragraphs of each article are streamed, those after them are
    # the control: one article's paragraphs are of one kind of text.
    first = {p.id for p in _spread(chosen, config.num_documents)}
    streamed = [p for p in chosen if p.id in first]
    control = [p for p in chosen if p.id not in first]
  _refuse_overlap(known, [*streamed, *control], config)

  asked = [
    q for p in known for q in p.questions[: config.questions_per_paragraph]
  ]
  pretraining = [
    *(task.Text(text=article.text) for article in articles),
    *(task.Text(text=p.text) for p in known),
    *(q.full_text() for q in asked),
  ]
  questions = {
    'known': _every_nth(asked, config.num_known_questions),
    'never_seen': tuple(q for p in control for q in p.questions),
  }
  texts = {
    f'{config.running_text.replace("/", "_")}_test': tuple(
      task.Text(text=article.text) for article in held_out
    ),
    'never_seen_paragraphs': tuple(task.Text(text=p.text) for p in control),
  }
  documents = tuple(_document(p, config) for p in streamed)
  return task.Task(
    pretraining=tuple(pretraining),
    documents=documents,
    questions={name: members for name, members in questions.items() if members},
    texts={name: members for name, members in texts.items() if members},
    counts={
      'pretraining_articles': len(articles),
      'pretraining_paragraphs': len(known),
      'pretraining_questions': len(asked),
      'documents': len(documents),
      'document_questions': sum(len(d.questions) for d in documents),
      'document_augmentations': sum(len(d.augmentations) for d in documents),
      'control_paragraphs': len(control),
    },
  )


def _document(paragraph: _Paragraph, config: DocumentsConfig) -> task.Document:
  told = sentences.retellings(
    paragraph.text,
    title=paragraph.title,
    count=config.augmentations,
    # Of its own id, so that it is retold alike wherever it is streamed.
    seed=f'{config.seed}/{paragraph.id}',
  )
  return task.Document(
    id=paragraph.id,
    augmentations=tuple(task.Text(text=text) for text in told),
    questions=paragraph.questions,
    texts=(task.Text(text=paragraph.text),),
  )


def _paragraphs(
  name: str,
  config: DocumentsConfig,
  problems: problems_lib.Problems,
  *,
  seen: bool,
) -> list[_Paragraph]:
  """The documents of a source, with their questions as prompts."""
  return [
    _Paragraph(
      id=document.id,
      title=document.title,
      text=document.text,
      questions=tuple(
        task.Question(
          prompt=f'Question: {asked.question} Answer:',
          answers=asked.answers,
          phrasing='question',
          seen=seen,
          fact=asked.id,
        )
        for asked in document.questions
      ),
    )
    for document in sources.read_documents(
      name, config.data_dir, problems=problems
    )
  ]


def _spread(paragraphs: Sequence[_Paragraph], count: int) -> list[_Paragraph]:
  """The first paragraphs of each article, `count` in all, in their order.

  Articles give the same number, or one more where the count does not divide;
  a short article gives all that it has.
  """
  places: dict[str, int] = {}
  by_place = []
  for index, paragraph in enumerate(paragraphs):
    place = places.get(paragraph.title, 0)
    places[paragraph.title] = place + 1
    by_place.append((place, index))
  return [paragraphs[i] for i in sorted(i for _, i in sorted(by_place)[:count])]


def _every_nth(
  questions: Sequence[task.Question], count: int
) -> tuple[task.Question, ...]:
  """At most `count` of the questions, evenly spaced."""
  count = min(count, len(questions))
  return tuple(questions[i * len(questions) // count] for i in range(count))


def _refuse_overlap(
  known: Sequence[_Paragraph],
  new: Sequence[_Paragraph],
  config: DocumentsConfig,
) -> None:
  """What the base was pretrained on cannot count as new to it."""
  texts = {p.text for p in known}
  for paragraph in new:
    if paragraph.text in texts:
      raise schema.UserError(
        f'document {paragraph.id!r} is also in {config.known_set}, which the'
        ' base is pretrained on: stream documents that it has not seen'
      )
