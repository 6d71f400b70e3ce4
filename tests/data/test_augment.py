"""Files of augmentations: what is read, and what the program finds wrong."""

import json
import re
import subprocess
import sys

import pytest

from smft_jax import schema
from smft_jax.data import augment
from tests.support import repository

_GUIDE = repository.ROOT / 'docs' / 'augmentations.md'
_GOOD = b'{"source": "a", "text": "b"}\n'


def _write(path, *lines):
  path.write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
  return str(path)


def _text(source, text, **more):
  return {'source': source, 'text': text, **more}


def test_read(tmp_path):
  path = _write(
    tmp_path / 'a.jsonl',
    _text('x', ' One. ', kind='paraphrase', model='any'),
    _text('y', 'Two.\nDeux.'),
    _text('x', 'Three.', kind='timeline'),
    _text('x', 'One.'),
  )
  found = augment.read(path)
  assert list(found) == ['x', 'y']
  assert found['x'] == [
    augment.Augmentation(source='x', text='One.', kind='paraphrase'),
    augment.Augmentation(source='x', text='Three.', kind='timeline'),
    augment.Augmentation(source='x', text='One.', kind='rewrite'),
  ]
  assert [made.text for made in found['y']] == ['Two.\nDeux.']


def test_answers_are_marked(tmp_path):
  path = _write(
    tmp_path / 'a.jsonl',
    {'source': 'x', 'question': ' Who wrote Emma? ', 'answer': ' Austen '},
    _text('x', 'Emma, not by Austen? By Austen.', answer='Austen'),
    _text('x', 'Emma is a novel.', answer=None, question=None),
    {'source': 'x', 'question': 'By whom?', 'answer': 'A', 'kind': 'short'},
  )
  made = augment.read(path)['x']
  assert [one.kind for one in made] == [
    'question', 'rewrite', 'rewrite', 'short'
  ]  # fmt: skip
  assert made[0].text == 'Question: Who wrote Emma? Answer: Austen'
  assert made[1].answer == (24, 30)  # the last of the two
  marked = [one.answer and one.text[slice(*one.answer)] for one in made]
  assert marked == ['Austen', 'Austen', None, 'A']
  assert augment.check(path).counts[2:5] == (
    'question: 1', 'rewrite: 2', 'short: 1'
  )  # fmt: skip


# What else a line may have wrong is tested with `json_lines`.
_BAD_LINES = [
  (b'{"source": "a", "text": "b"', 'not JSON at character 28: '),
  (b'{"source": "a", "txt": "b"}', "'text' is missing; there is source, txt"),
  (b'{"source": "a", "text": " \\n"}', "'text' is empty"),
  (b'{"source": 3, "text": "b"}', "'source' must be text, not 3"),
  (
    b'{"source": "a", "text": "b", "kind": "to a\\n child"}',
    "must be a word without spaces, such as 'to-a-child'",
  ),
  (b'{"source": "a", "text": "b", "kind": ""}', "kind '' must be a word"),
  (b'{"source": "a", "text": "b", "kind": 3}', 'kind 3 must be a word'),
  (b'{"source": "a", "question": "b?"}', "'answer' is missing; there is"),
  (b'{"source": "a", "question": "b?", "answer": " "}', "'answer' is empty"),
  (
    b'{"source": "a", "question": "b?", "answer": "c", "text": "d"}',
    "there are 'question' and 'text': give one of them",
  ),
  (
    b'{"source": "a", "text": "b", "answer": "c"}',
    "the answer 'c' follows nothing in the text",
  ),
]


@pytest.mark.parametrize(('line', 'said'), _BAD_LINES)
def test_bad_lines(tmp_path, line, said):
  file = tmp_path / 'mine.jsonl'
  file.write_bytes(b'\n' + _GOOD + line + b'\n' + _GOOD.replace(b'b', b'c'))
  with pytest.raises(schema.UserError) as raised:
    augment.read(str(file))
  message = str(raised.value)
  assert message.startswith(f'{file}:3: ')
  assert said in message
  assert '\n' not in message
  # The program goes on after it.
  report = augment.check(str(file), least=2)
  assert report.problems == (message,)
  assert 'lines: 3' in report.counts
  assert 'rewrite: 2' in report.counts


@pytest.mark.parametrize('content', ['', '\n \n'])
def test_a_file_of_nothing(tmp_path, content):
  file = tmp_path / 'a.jsonl'
  file.write_text(content)
  with pytest.raises(schema.UserError, match='holds no augmentation; each'):
    augment.read(str(file))
  (problem,) = augment.check(str(file)).problems
  assert 'holds no augmentation' in problem


def test_a_file_that_is_not_there(tmp_path):
  (tmp_path / 'mine.jsonl').write_bytes(_GOOD)
  for read in (augment.read, augment.check):
    with pytest.raises(schema.UserError, match=r"did you mean 'mine\.jsonl'\?"):
      read(str(tmp_path / 'mime.jsonl'))


@pytest.fixture
def files(tmp_path):
  """A file with a problem of each kind but bad lines, and its sources."""
  made = _write(
    tmp_path / 'a.jsonl',
    _text('emma', 'One', kind='paraphrase'),
    _text('emma', 'Three'),
    _text('emma', 'One ', kind='timeline'),  # the same but for the space
    _text('tower', 'One', kind='paraphrase'),  # of another source
    _text('towr', 'Five'),
  )
  sources = _write(
    tmp_path / 's.jsonl',
    *({'id': name, 'text': 't'} for name in ('seine', 'tower', 'emma')),
  )
  return made, sources


def test_check_without_sources(files):
  path, _ = files
  report = augment.check(path)
  assert report.problems == (f"{path}:3: 'emma' has the same text in line 1",)
  assert report.counts == (
    'lines: 5',
    'sources: 3',
    'paraphrase: 2',
    'rewrite: 2',
    'most of a source: 2 (emma)',
    'fewest of a source: 1 (tower)',
    'mean length: 4 characters',
    'duplicates: 1',
  )
  report = augment.check(path, least=2)
  assert report.problems[1:] == (
    f"{path}:4: 'tower' has 1 of the 2 texts that are wanted",
    f"{path}:5: 'towr' has 1 of the 2 texts that are wanted",
  )


def test_check_against_sources(files):
  path, sources = files
  report = augment.check(path, sources=sources)
  assert report.problems == (
    f"{path}:3: 'emma' has the same text in line 1",
    f"{path}:5: {sources} has no id 'towr'; did you mean 'tower'?",
    f"{sources}:1: 'seine' has 0 of the 1 texts that are wanted",
  )
  assert 'sources: 2 of 3' in report.counts
  assert 'fewest of a source: 0 (seine)' in report.counts
  report = augment.check(path, sources=sources, least=2)
  assert report.problems[3:] == (
    f"{sources}:2: 'tower' has 1 of the 2 texts that are wanted",
  )
  assert len(augment.check(path, sources=sources, least=0).problems) == 2


def test_an_id_may_be_a_number_as_in_documents(tmp_path):
  path = _write(tmp_path / 'a.jsonl', _text('17', 'One'))
  sources = _write(tmp_path / 's.jsonl', {'id': 17, 'text': 'The first.'})
  assert augment.check(path, sources=sources).problems == ()


def test_what_is_wrong_with_the_sources(tmp_path):
  path = _write(tmp_path / 'a.jsonl', _text('x', 'One'))
  sources = tmp_path / 's.jsonl'
  sources.write_text('{"id": "x"}\n{"id": "x"}\nx\n{"name": "y"}\n')
  report = augment.check(path, sources=str(sources))
  assert report.problems[:1] == (f"{sources}:2: id 'x' repeats line 1",)
  assert report.problems[1].startswith(f'{sources}:3: not JSON')
  assert report.problems[2].startswith(f"{sources}:4: 'id' is missing")
  sources.write_text('')
  report = augment.check(path, sources=str(sources))
  assert report.problems[1:] == (
    f'{sources} holds no id; each line is {{"id": ...}}',
  )


def test_many_unknown_sources_are_all_listed(tmp_path):
  path = _write(
    tmp_path / 'a.jsonl', *(_text(f'x{i}', 'One') for i in range(101))
  )
  sources = _write(tmp_path / 's.jsonl', {'id': 'x'})
  report = augment.check(path, sources=sources, least=0)
  assert len(report.problems) == 101
  assert sum('did you mean' in line for line in report.problems) == 20


def test_the_program_prints_and_exits(files, capsys, tmp_path):
  path, sources = files
  assert augment.main(['check', path, f'--sources={sources}', '--least=2']) == 2
  printed = capsys.readouterr()
  report = augment.check(path, sources=sources, least=2)
  assert printed.out.splitlines() == [
    *report.counts,
    *report.problems,
    '4 problems',
  ]
  assert not printed.err
  good = _write(tmp_path / 'good.jsonl', _text('x', 'One'))
  assert augment.main(['check', good]) == 0
  assert capsys.readouterr().out.endswith('\nno problem\n')


@pytest.mark.parametrize(
  ('arguments', 'said'),
  [
    (['chek', 'FILE'], "'chek'"),
    (['chek'], "'chek'"),
    ([], 'required: command, file'),
    (['check'], 'required: file'),
    (['check', 'FILE', '--lest=3'], "--lest=3; did you mean '--least'?"),
    (['check', 'FILE', 'FILE2'], 'unknown argument FILE2; see --help'),
    (['check', 'FILE', '--least=few'], "'few'"),
    (['check', 'FILE', '--least=-1'], '--least must be at least 0, not -1'),
    (['check', 'FILE'], 'there is no file FILE'),
  ],
)
def test_mistakes_are_one_line(arguments, said, capsys, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  assert augment.main(arguments) == 2
  printed = capsys.readouterr()
  assert not printed.out
  assert printed.err.startswith('error: ')
  assert said in printed.err
  assert printed.err.count('\n') == 1


def test_the_program_runs_as_a_module_and_without_jax(files):
  path, _ = files
  command = [sys.executable, '-m', 'smft_jax.data.augment', 'check', path]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 2
  assert done.stdout.endswith('\n1 problem\n')
  assert not done.stderr
  code = 'import sys, smft_jax.data.augment; print("jax" in sys.modules)'
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == ['False']


def _blocks(language):
  guide = _GUIDE.read_text()
  return re.findall(rf'^```{language}\n(.*?)^```', guide, re.M | re.S)


def test_the_guide_shows_what_the_program_prints(capsys, monkeypatch, tmp_path):
  facts, rewrites = _blocks('json')
  (tmp_path / 'facts.jsonl').write_text(facts)
  (tmp_path / 'rewrites.jsonl').write_text(rewrites)
  monkeypatch.chdir(tmp_path)
  (command,) = _blocks('bash')
  words = command.split()
  assert words[:3] == ['python', '-m', 'smft_jax.data.augment']
  assert augment.main(words[3:]) == 2
  assert capsys.readouterr().out in _blocks('text')


def test_the_prompts_of_the_guide_ask_for_lines_that_can_be_read(tmp_path):
  forms = [
    line
    for b in _blocks('text')
    for line in b.splitlines()
    if line.startswith('{"source": "{id}"')
  ]
  assert len(forms) == 4
  file = tmp_path / 'a.jsonl'
  file.write_text('\n'.join(forms).replace('<the kind>', 'timeline'))
  kinds = [made.kind for made in augment.read(str(file))['{id}']]
  assert kinds == ['paraphrase', 'scene', 'timeline', 'question']
