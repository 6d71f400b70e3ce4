"""Facts as statements: one fact a step, in many wordings (arXiv 2510.15103).

A fact is a question with its answer, such as one of TriviaQA. It is trained on
as statements, made by rule or by a language model, and asked in two phrasings:
by the beginning of a statement, which training shows, and as a question, which
it never shows.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from smft_jax import schema
from smft_jax.data import real_text
from smft_jax.data import task
from smft_jax.data.retelling import statements
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactsConfig(real_text.RealTextConfig):
  """Which facts are streamed after a base of real text.

  Attributes:
    kind: 'facts'.
    facts_set: Source of questions; those that the base was pretrained on are
      left out.
    num_facts: How many are streamed, evenly spaced over the source.
    max_chars: Longest question with its answer that is streamed, in characters:
      batches are as long as their longest row, all of them.

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
  """Reads the data sets and puts the experiment together.

  Args:
    config: What to read and how much of it.

  Returns:
    A task with a document for each fact.

  Raises:
    UserError: Data is missing, broken or too little; one line that names it.
  """
  problems = problems_lib.Problems(config.bad_input)
  # The facts first: a file of one's own is the likeliest to be wrong.
  facts = sources.read_questions(
    config.facts_set, config.data_dir, problems=problems
  )
  known = real_text.known(config, problems)
  rest = real_text.held_out(config, known, problems)
  trained = {q.prompt for q in (*known.asked, *known.questions)}
  new = [
    f for f in facts if real_text.question(f, seen=False).prompt not in trained
  ]
  short = [
    f for f in new if len(f.question) + len(f.answers[0]) <= config.max_chars
  ]
  if config.num_facts > len(short):
    raise schema.UserError(
      f'config.data.num_facts = {config.num_facts} is more than the'
      f' {len(short)} questions of {config.facts_set} that are not longer than'
      f' config.data.max_chars = {config.max_chars} and not pretrained on'
    )
  chosen = [
    short[i * len(short) // config.num_facts] for i in range(config.num_facts)
  ]
  told = real_text.read_augmentations(config, [f.id for f in chosen])
  documents = tuple(_document(f, told.get(f.id), config) for f in chosen)
  return dataclasses.replace(
    rest,
    documents=documents,
    counts={
      **rest.counts,
      'documents': len(documents),
      'facts_too_long': len(new) - len(short),
      'document_augmentations': sum(len(d.augmentations) for d in documents),
      **{f'skipped_{kind}': n for kind, n in problems.counts.items()},
    },
  )


def _document(fact: sources.QuestionAnswer, told, config) -> task.Document:
  wordings = statements.fact_statements(
    fact.question,
    fact.answers[0],
    count=config.augmentations,
    # Of its own id, so that it is told alike wherever it is streamed.
    seed=f'{config.seed}/{fact.id}',
    with_question_form=False,
  )
  asked = real_text.question(fact, seen=False)
  questions = [asked]
  # One that asks before it tells, so that its beginning can be completed.
  shown = next((w for w in wordings if _asks_first(w, fact.question)), None)
  if shown is not None:
    prompt = shown.text[: _start(shown)].rstrip()
    questions.insert(
      0,
      dataclasses.replace(
        asked, prompt=prompt, phrasing='statement', seen=True
      ),
    )
  if told is not None:
    kept = [shown or wordings[0], *(task.Text(text=a.text) for a in told)]
    wordings = kept[: config.augmentations]
  return task.Document(
    id=fact.id,
    augmentations=tuple(wordings),
    questions=tuple(questions),
    texts=(wordings[0],),
  )


def _asks_first(statement: task.Text, question: str) -> bool:
  before = statement.text[: _start(statement)]
  # A space, as stands between a prompt and what is written after it.
  return question.strip() in before and before.endswith(' ')


def _start(statement: task.Text) -> int:
  assert statement.answer is not None
  return statement.answer[0]
