"""Tasks whose target stream is single facts (arXiv:2510.15103).

A fact is a question with its answer, such as one of TriviaQA. Training sees
statements of it, made by rule or by a language model. Evaluation asks in two
phrasings: by the beginning of a statement, which training shows, and by the
question, which it never shows.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from smft_jax import schema
from smft_jax.data import background
from smft_jax.data import real_text
from smft_jax.data import task
from smft_jax.data.retelling import statements
from smft_jax.data.sources import items
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactsConfig(real_text.RealTextConfig):
  """The facts streamed after a base of real text.

  Attributes:
    kind: 'facts', the kind of data.
    facts_set: Source of questions; those of pretraining are left out.
    num_facts: Number of facts to stream, evenly spaced over the source.
    max_chars: Most characters of a question with its answer; longer facts are
      left out, since the longest row sets the length of all batches.

  Raises:
    UserError: A value is out of range.
  """

  kind: Literal['facts'] = 'facts'
  facts_set: str = 'triviaqa_open:validation'
  num_facts: int = 1000
  max_chars: int = 160

  def __post_init__(self) -> None:
    super().__post_init__()
    schema.at_least(1, self, 'num_facts', 'max_chars')


def make_task(config: FactsConfig) -> task.Task:
  """Reads the data and makes a task with a document for each fact.

  Raises:
    UserError: Data is missing, broken or insufficient.
  """
  problems = problems_lib.Problems(config.bad_input)
  reader = sources.Reader(problems, config.data_dir)
  # The facts first: the user's own file is the likeliest to be wrong.
  facts = reader.questions(config.facts_set)
  base_task = background.base_task if config.general else real_text.base_task
  base, prompts = base_task(config, reader)
  new = [
    fact
    for fact in facts
    if real_text.question(fact, seen=False).prompt not in prompts
  ]
  short = [
    f for f in new if len(f.question) + len(f.answers[0]) <= config.max_chars
  ]
  if config.num_facts > len(short):
    raise schema.UserError(
      f'config.data.num_facts = {config.num_facts} is more than the'
      f' {len(short)} questions of {config.facts_set} that are new to the base'
      f' and at most config.data.max_chars = {config.max_chars} long'
    )
  chosen = real_text.evenly(short, config.num_facts)
  written = real_text.read_augmentations(config, [f.id for f in chosen])
  documents = tuple(_document(f, written.get(f.id), config) for f in chosen)
  return dataclasses.replace(
    base,
    documents=documents,
    counts={
      **base.counts,
      'documents': len(documents),
      'facts_too_long': len(new) - len(short),
      'document_augmentations': sum(len(d.augmentations) for d in documents),
      **problems.record(),
    },
  )


def _document(fact: items.QuestionAnswer, written, config) -> task.Document:
  wordings = statements.fact_statements(
    fact.question,
    fact.answers[0],
    count=config.augmentations,
    # The same statements at any place in any stream.
    seed=f'{config.seed}/{fact.id}',
    with_question_form=False,
  )
  asked = real_text.question(fact, seen=False)
  questions = [asked]
  # A statement that begins with the question can serve as a prompt.
  shown = next((w for w in wordings if _asks_first(w, fact.question)), None)
  if shown is not None:
    prompt = shown.text[: _start(shown)].rstrip()
    questions.insert(
      0,
      dataclasses.replace(
        asked, prompt=prompt, phrasing='statement', seen=True
      ),
    )
  if written is not None:
    kept = [shown or wordings[0], *written]
    wordings = kept[: config.augmentations]
  return task.Document(
    id=fact.id,
    augmentations=tuple(wordings),
    questions=tuple(questions),
    texts=(wordings[0],),
  )


def _asks_first(statement: task.Text, question: str) -> bool:
  before = statement.text[: _start(statement)]
  # Evaluation, too, puts a space between prompt and answer.
  return question.strip() in before and before.endswith(' ')


def _start(statement: task.Text) -> int:
  assert statement.answer is not None
  return statement.answer[0]
