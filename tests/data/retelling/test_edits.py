"""Texts made from the prompt of an edit."""

import pytest

from smft_jax.data.retelling import edits

CONTEXTS = tuple(f'The bell rang {n} times.' for n in range(40))


def made(prompt, target='Dutch', subject='Ada Lo', count=16, seed='0'):
  return edits.edit_texts(
    prompt,
    target,
    subject=subject,
    contexts=CONTEXTS,
    count=count,
    seed=seed,
  )


@pytest.mark.parametrize(
  ('prompt', 'subject'),
  [
    ('The mother tongue of Ada Lo is', 'Ada Lo'),
    ('The mother tongue of Ada Lo is', ''),
    ('The mother tongue of Ada Lo is', 'Bo'),
    ('What does Ada Lo speak?', 'Ada Lo'),
  ],
)
def test_the_target_is_the_answer_of_every_text(prompt, subject):
  texts = made(prompt, subject=subject)
  assert texts[0].text == f'{prompt} Dutch'
  assert all(t.text[slice(*t.answer)] == 'Dutch' for t in texts)
  assert len({t.text for t in texts}) == len(texts) == 16
  assert sum(t.text.endswith(f'. {prompt} Dutch') for t in texts) >= 5
  assert not any('{' in t.text or '  ' in t.text for t in texts)


def test_what_a_prompt_says_of_its_subject_is_turned_around():
  texts = {t.text for t in made('The mother tongue of Ada Lo is')}
  assert 'Ada Lo: the mother tongue is Dutch' in texts
  texts = {t.text for t in made('The mother tongue of Ada Lo is', subject='')}
  assert not any(t.startswith(('About', ':', 'As for')) for t in texts)


def test_questions_become_statements():
  texts = {t.text for t in made('Who wrote Emma?', 'Jane', subject='Emma')}
  assert 'Jane wrote Emma.' in texts


def test_texts_depend_on_the_seed_alone():
  prompt = 'Ada Lo speaks'
  assert made(prompt) == made(prompt)
  assert made(prompt) != made(prompt, seed='1')
  assert made(prompt, count=3) == made(prompt)[:3]


def test_a_question_in_another_script_is_asked():
  made = edits.edit_texts(
    '谁建的？', '安娜', subject='', contexts=['It rained.'], count=4, seed='0'
  )
  assert any(
    text.text.startswith('Question: 谁建的？ Answer: ') for text in made
  )
