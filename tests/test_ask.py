"""How a question is asked."""

import pytest

from smft_jax import ask
from smft_jax.config import sections


@pytest.mark.parametrize(
  ('text', 'prompt'),
  [
    ('Who built it?', 'Question: Who built it? Answer:'),
    ('谁建的？', 'Question: 谁建的？ Answer:'),
    ('من بناها؟', 'Question: من بناها؟ Answer:'),
    ('It was built by', 'It was built by'),
  ],
)
def test_a_question_is_asked_as_the_evaluation_does(text, prompt):
  settings = sections.EvaluationConfig(every_documents=1, batch_size=1)
  # Without examples, no data is read.
  assert ask.prompt_of(text, None, settings) == prompt
