"""Tasks whose target stream is real documents, cut into chunks.

The stream has paragraphs of SQuAD articles, pages for SimpleQA's questions, or
the user's own documents, none of them pretrained on. Training sees retellings
of a chunk, by rule or by a language model, and never its questions. For
pretraining and held-out data see `data.real_text` and `data.background`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
import re
from typing import Literal

from smft_jax import schema
from smft_jax.data import background
from smft_jax.data import real_text
from smft_jax.data import task
from smft_jax.data.general import prose
from smft_jax.data.retelling import chunks
from smft_jax.data.retelling import facts
from smft_jax.data.retelling import rewrites
from smft_jax.data.sources import files
from smft_jax.data.sources import items
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources

# As Markdown has it.
_HEADING = re.compile(r'\s*#{1,6} +(\S.*?)\s*(?:\n|$)')


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentsConfig(real_text.RealTextConfig):
  """The documents streamed after a base of real text.

  Attributes:
    kind: 'squad' streams paragraphs of `stream_set`, 'jsonl' and 'simpleqa' the
      documents of `documents_file`; 'simpleqa' asks the question of
      `questions_set` with the document's id.
    stream_set: Source of documents with questions, for 'squad' only.
    questions_set: Source of questions, for 'simpleqa' only.
    documents_file: Source of documents, see `sources.Reader.documents`; for
      'jsonl' and 'simpleqa' only.
    chunk_chars: Most characters learned at once; longer documents of a file are
      cut at paragraphs and sentences.
    num_documents: Streamed paragraphs of 'squad', spread evenly over all its
      articles. A file of documents is always streamed whole.
    num_control: Further paragraphs of these articles, only measured; for
      'squad' only.

  Raises:
    UserError: A value is out of range.
  """

  kind: Literal['squad', 'jsonl', 'simpleqa'] = 'squad'
  stream_set: str = 'squad/v1.1:validation'
  questions_set: str = 'simpleqa:test'
  documents_file: str = ''
  chunk_chars: int = 2000
  num_documents: int = 200
  num_control: int = 100

  def __post_init__(self) -> None:
    super().__post_init__()
    schema.at_least(1, self, 'num_documents')
    schema.at_least(0, self, 'num_control')
    schema.at_least(100, self, 'chunk_chars')
    if self.kind != 'squad' and not self.documents_file:
      raise schema.UserError(
        f'documents_file is empty, but kind = {self.kind!r} streams its'
        f' documents: give a folder, or a file that ends in {files.ENDINGS}'
      )


def make_task(config: DocumentsConfig) -> task.Task:
  """Reads the data and makes a task with a document for each chunk.

  The chunks of a document that was cut are 'ID/0', 'ID/1'. To the held-out sets
  of `base_task`, 'squad' adds the texts 'never_seen_paragraphs' and
  their questions, 'never_seen'. The order of examples in a data set's files
  does not matter.

  Raises:
    UserError: Data is missing, broken or insufficient.
  """
  problems = problems_lib.Problems(config.bad_input)
  reader = sources.Reader(problems, config.data_dir)
  # The stream first: the user's own file is the likeliest to be wrong.
  streamed, control = _streamed(config, reader)
  base_task = background.base_task if config.general else real_text.base_task
  base, _ = base_task(config, reader)
  pretrained = {text.text for text in base.pretraining}
  for document in (*streamed, *control):
    if document.text in pretrained:
      raise schema.UserError(
        f'document {document.id!r} is also a pretraining text: stream documents'
        ' that are new to the base'
      )
  pieces = streamed
  if config.kind != 'squad':  # whose documents are paragraphs
    pieces = [c for d in streamed for c in _cut(d, config.chunk_chars)]
  written = real_text.read_augmentations(config, [c.id for c in pieces])
  documents = tuple(_document(c, written.get(c.id), config) for c in pieces)
  questions, texts = dict(base.questions), dict(base.texts)
  if _questions(control):
    questions['never_seen'] = _questions(control)
  if control:
    texts['never_seen_paragraphs'] = tuple(
      task.Text(text=paragraph.text) for paragraph in control
    )
  return dataclasses.replace(
    base,
    documents=documents,
    questions=questions,
    texts=texts,
    counts={
      **base.counts,
      'documents': len(documents),
      'document_questions': sum(len(d.questions) for d in documents),
      'document_augmentations': sum(len(d.augmentations) for d in documents),
      'control_paragraphs': len(control),
      **problems.record(),
    },
  )


def _streamed(config: DocumentsConfig, reader: sources.Reader):
  """Reads the documents to stream, and similar ones to measure only."""
  if config.kind == 'squad':
    new = reader.documents(config.stream_set)
    wanted = config.num_documents + config.num_control
    if wanted > len(new):
      raise schema.UserError(
        f'config.data.num_documents + num_control = {wanted} is more than the'
        f' {len(new)} paragraphs of {config.stream_set}'
      )
    chosen = _spread(new, wanted)
    # Of each article the first paragraphs are streamed, the next measured, so
    # that both have the same kind of text.
    first = {d.id for d in _spread(chosen, config.num_documents)}
    return (
      [d for d in chosen if d.id in first],
      [d for d in chosen if d.id not in first],
    )
  documents = [_titled(d) for d in reader.documents(config.documents_file)]
  if config.kind == 'simpleqa':
    documents = _with_questions(documents, config, reader)
  return documents, []


def _titled(document: items.SourceDocument) -> items.SourceDocument:
  """Gives a document without a title the heading that it begins with."""
  heading = _HEADING.match(document.text)
  if document.title or not heading:
    return document
  return dataclasses.replace(document, title=heading[1])


def _with_questions(documents, config, reader):
  """Gives each page the question with its id."""
  asked = {q.id: q for q in reader.questions(config.questions_set)}
  for document in documents:
    if document.id not in asked:
      raise schema.UserError(
        f'{config.documents_file}: a page has the id {document.id!r}, but none'
        f' of the {len(asked)} questions of {config.questions_set} has; an id'
        f' looks like {next(iter(asked))!r}'
      )
  return [dataclasses.replace(d, questions=(asked[d.id],)) for d in documents]


def _cut(
  document: items.SourceDocument, chunk_chars: int
) -> Iterable[items.SourceDocument]:
  """Cuts a document into chunks, each with the questions that it answers."""
  spans = chunks.chunks(document.text, chunk_chars)
  if len(spans) == 1:
    yield document
    return
  answered_in = [
    chunks.chunk_of(spans, document.text, q.answers) for q in document.questions
  ]
  for index, (start, end) in enumerate(spans):
    yield items.SourceDocument(
      id=f'{document.id}/{index}',
      title=document.title,
      text=document.text[start:end],
      questions=tuple(
        q
        for q, chunk in zip(document.questions, answered_in, strict=True)
        if chunk == index
      ),
    )


def _document(
  document: items.SourceDocument, written, config: DocumentsConfig
) -> task.Document:
  whole = task.Text(text=document.text)
  if written is None:
    retold = {text.text: text for text in _retold(document, config)}
  else:
    retold = {text.text: text for text in written}
  # Its questions are never trained on, not even if a rule or a model asks them.
  asked = [q.question.casefold() for q in document.questions]
  augmentations = [
    text
    for text in retold.values()
    if not any(question in text.text.casefold() for question in asked)
  ]
  if written is not None:
    augmentations = [whole, *(t for t in augmentations if t != whole)]
  return task.Document(
    id=document.id,
    augmentations=tuple(augmentations)[: config.augmentations],
    questions=_questions([document]),
    texts=(whole,),
  )


def _retold(
  document: items.SourceDocument, config: DocumentsConfig
) -> tuple[task.Text, ...]:
  """Retells a document, more often than `augmentations` if its text allows."""
  # The same retellings at any place in any stream.
  seed = f'{config.seed}/{document.id}'
  if config.general:  # A base that knows the language learns what is said.
    return facts.fact_texts(
      document.text,
      title=document.title,
      contexts=prose.short_sentences(),
      seed=seed,
    )
  made = rewrites.rewrites(
    document.text,
    title=document.title,
    # Some may turn out to be its own questions.
    count=config.augmentations + len(document.questions),
    seed=seed,
  )
  return tuple(task.Text(text=one.text, answer=one.answer) for one in made)


def _questions(documents) -> tuple[task.Question, ...]:
  return tuple(
    real_text.question(q, seen=False) for d in documents for q in d.questions
  )


def _spread(
  documents: Sequence[items.SourceDocument], count: int
) -> list[items.SourceDocument]:
  """Takes the first paragraphs of each article, `count` in all, in order.

  Articles give equally many, but for a remainder; a short article gives all.
  """
  places: dict[str, int] = {}
  by_place = []
  for index, document in enumerate(documents):
    place = places.get(document.title, 0)
    places[document.title] = place + 1
    by_place.append((place, index))
  return [documents[i] for i in sorted(i for _, i in sorted(by_place)[:count])]
