"""What stands before a question that is asked with its document."""

import dataclasses

import pytest

from smft_jax.config import experiment as config_lib
from smft_jax.data import task as task_lib
from smft_jax.runs import measurements
from smft_jax.runs import sets
from tests.support import tiny_run


@dataclasses.dataclass(frozen=True)
class Recorder:
  """An evaluator that answers nothing and keeps the prompts."""

  prompts: list
  max_length: int = 64
  batch_size: int = 8

  def answers(self, params, questions):
    del params
    self.prompts.extend(q.prompt for q in questions)
    return [''] * len(questions)

  def answer_nll(self, params, questions):
    del params, questions
    return 1.0


def document(name, asks=True):
  text = task_lib.Text(text=f'{name} lives in Porto.')
  question = task_lib.Question(
    prompt=f'Question: Where is {name}? Answer:',
    answers=('Porto',),
    phrasing='',
    seen=True,
    fact=name,
  )
  return task_lib.Document(
    id=name,
    augmentations=(text,),
    questions=(question,) if asks else (),
    texts=(text,),
  )


@pytest.fixture
def prompts_of():
  def prompts_of(documents, **settings):
    task = task_lib.Task(
      pretraining=(),
      documents=tuple(documents),
      questions={
        'known': (*document('Bob').questions, *document('Dan').questions)
      },
      texts={},
      counts={},
    )
    changes = {f'evaluation__{key}': value for key, value in settings.items()}
    experiment = config_lib.from_config_dict(tiny_run.make(**changes))
    drawn = sets.draw(task, experiment.evaluation, max_documents=None, seed=0)
    recorder = Recorder([])
    measured = measurements.Measurements(
      evaluator=recorder, metric='recall', text_metric='nll', **vars(drawn)
    )
    before = measured.measure(None)
    recorder.prompts.clear()
    measured.measure_in_context(None, before)
    return recorder.prompts

  return prompts_of


def test_a_document_stands_before_its_questions(prompts_of):
  assert prompts_of([document('Ada'), document('Cy')]) == [
    'Ada lives in Porto. Question: Where is Ada? Answer:',
    'Cy lives in Porto. Question: Where is Cy? Answer:',
  ]


def test_behind_examples_another_document_shows_how_to_read(prompts_of):
  documents = [document('Ada'), document('Eve', asks=False), document('Cy')]
  few = dict(prompt_format='few_shot', shots=1)
  ada, cy, *_ = prompts_of(documents, **few)
  reads = 'lives in Porto. Question: Where is'
  assert ada == (f'Cy {reads} Cy? Answer: Porto\n\nAda {reads} Ada? Answer:')
  # The last one is shown the first; one without a question shows nothing.
  assert cy == f'Ada {reads} Ada? Answer: Porto\n\nCy {reads} Cy? Answer:'
  (alone, _) = prompts_of([document('Ada')], **few)
  assert alone == f'Ada {reads} Ada? Answer:'
