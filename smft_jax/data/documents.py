"""Real documents as a stream: pages cut into chunks, a chunk after a chunk.

Streamed are paragraphs of SQuAD articles, pages for SimpleQA's questions, or
documents of one's own, none of them pretrained on. What is trained on of a
chunk are its retellings, by rule or by a language model; its questions are
never trained on. What the base knows and what is held out: `data.real_text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import dataclasses
from typing import Literal

from smft_jax import schema
from smft_jax.data import real_text
from smft_jax.data import task
from smft_jax.data.retelling import chunks
from smft_jax.data.retelling import rewrites
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class DocumentsConfig(real_text.RealTextConfig):
  """Which documents are streamed after a base of real text.

  Attributes:
    kind: 'squad' streams paragraphs of `stream_set`, 'jsonl' the documents of
      `documents_file`, in its order, and 'simpleqa' those of them whose id is
      that of a question of `questions_set`, which is then asked.
    stream_set: Source of documents with questions, for 'squad' only.
    questions_set: Source of questions, for 'simpleqa' only.
    documents_file: Source of documents, see `sources.read_documents`; for
      'jsonl' and 'simpleqa' only.
    chunk_chars: Longest piece that is learned at once, in characters; longer
      documents of a file are cut at paragraphs and sentences.
    num_documents: Streamed paragraphs of 'squad', spread evenly over all its
      articles; a file of documents is always streamed whole.
    num_control: Paragraphs of the same articles that are kept out of the
      stream and only measured; for 'squad' only.

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
        f'documents_file is empty, and kind = {self.kind!r} streams the'
        ' documents in it: give the path of a file of JSON lines'
      )


def make_task(config: DocumentsConfig) -> task.Task:
  """Reads the data sets and puts the experiment together.

  Args:
    config: What to read and how much of it.

  Returns:
    A task with a document for each chunk, which is called 'ID/0', 'ID/1' where
    a document was cut. Beside the sets of `real_text.held_out`, of 'squad' the
    texts 'never_seen_paragraphs' and the questions on them, 'never_seen', are
    measured. It depends only on the config and the data, not on the order of
    examples in the files.

  Raises:
    UserError: Data is missing, broken or too little; one line that names it.
  """
  problems = problems_lib.Problems(config.bad_input)
  # What is streamed first: a file of one's own is the likeliest to be wrong.
  streamed, control = _streamed(config, problems)
  known = real_text.known(config, problems)
  for document in (*streamed, *control):
    if document.text in known.documents:
      raise schema.UserError(
        f'document {document.id!r} is also in {config.known_set}, which the'
        ' base is pretrained on: stream documents that it has not seen'
      )
  rest = real_text.held_out(config, known, problems)
  cut = streamed
  if config.kind != 'squad':  # which is cut into paragraphs as it is
    cut = [c for d in streamed for c in _cut(d, config.chunk_chars)]
  told = real_text.read_augmentations(config, [c.id for c in cut])
  documents = tuple(_document(c, told.get(c.id), config) for c in cut)
  never_seen = _questions(control)
  return dataclasses.replace(
    rest,
    documents=documents,
    questions=rest.questions
    | ({'never_seen': never_seen} if never_seen else {}),
    texts=rest.texts
    | (
      {'never_seen_paragraphs': tuple(task.Text(text=p.text) for p in control)}
      if control
      else {}
    ),
    counts={
      **rest.counts,
      'documents': len(documents),
      'document_questions': sum(len(d.questions) for d in documents),
      'document_augmentations': sum(len(d.augmentations) for d in documents),
      'control_paragraphs': len(control),
      **{f'skipped_{kind}': n for kind, n in problems.counts.items()},
    },
  )


def _streamed(config: DocumentsConfig, problems: problems_lib.Problems):
  """The documents to stream, and those of their kind to measure only."""
  if config.kind == 'squad':
    new = sources.read_documents(
      config.stream_set, config.data_dir, problems=problems
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
    first = {d.id for d in _spread(chosen, config.num_documents)}
    return (
      [d for d in chosen if d.id in first],
      [d for d in chosen if d.id not in first],
    )
  documents = sources.read_documents(
    config.documents_file, config.data_dir, problems=problems
  )
  if config.kind == 'simpleqa':
    documents = _with_questions(documents, config, problems)
  return documents, []


def _with_questions(documents, config, problems):
  """Pages, each with the question whose id it has."""
  asked = {
    q.id: q
    for q in sources.read_questions(
      config.questions_set, config.data_dir, problems=problems
    )
  }
  for document in documents:
    if document.id not in asked:
      raise schema.UserError(
        f'{config.documents_file}: a page has the id {document.id!r}, which is'
        f' none of the {len(asked)} questions of {config.questions_set}, such'
        f' as {next(iter(asked))!r}'
      )
  return [dataclasses.replace(d, questions=(asked[d.id],)) for d in documents]


def _cut(
  document: sources.SourceDocument, chunk_chars: int
) -> Iterable[sources.SourceDocument]:
  """The chunks of a document, each with the questions that it answers."""
  spans = chunks.chunks(document.text, chunk_chars)
  if len(spans) == 1:
    yield document
    return
  belongs = [
    chunks.chunk_of(spans, document.text, q.answers) for q in document.questions
  ]
  for index, (start, end) in enumerate(spans):
    yield sources.SourceDocument(
      id=f'{document.id}/{index}',
      title=document.title,
      text=document.text[start:end],
      questions=tuple(
        q
        for q, chunk in zip(document.questions, belongs, strict=True)
        if chunk == index
      ),
    )


def _document(
  document: sources.SourceDocument, told, config: DocumentsConfig
) -> task.Document:
  if told is not None:
    texts = dict.fromkeys([document.text, *(a.text for a in told)])
    augmentations = tuple(task.Text(text=text) for text in texts)
  else:
    made = rewrites.rewrites(
      document.text,
      title=document.title,
      count=config.augmentations,
      # Of its own id, so that it is retold alike wherever it is streamed.
      seed=f'{config.seed}/{document.id}',
    )
    augmentations = tuple(
      task.Text(text=one.text, answer=one.answer) for one in made
    )
  return task.Document(
    id=document.id,
    augmentations=augmentations[: config.augmentations],
    questions=_questions([document]),
    texts=(task.Text(text=document.text),),
  )


def _questions(documents) -> tuple[task.Question, ...]:
  return tuple(
    real_text.question(q, seen=False) for d in documents for q in d.questions
  )


def _spread(
  documents: Sequence[sources.SourceDocument], count: int
) -> list[sources.SourceDocument]:
  """The first paragraphs of each article, `count` in all, in their order.

  Articles give the same number, or one more where the count does not divide;
  a short article gives all that it has.
  """
  places: dict[str, int] = {}
  by_place = []
  for index, document in enumerate(documents):
    place = places.get(document.title, 0)
    places[document.title] = place + 1
    by_place.append((place, index))
  return [documents[i] for i in sorted(i for _, i in sorted(by_place)[:count])]
