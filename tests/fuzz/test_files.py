"""Damaged files: read, or refused in one line; no crash, no hang, no bloat."""

import gzip
import json
import pathlib
import shutil
import tempfile

from hypothesis import given
from hypothesis import strategies as st
import jax
import numpy as np
import pytest
import safetensors.numpy

from smft_jax import hf
from smft_jax.data import tokenizers
from smft_jax.data.sources import problems as problems_lib
from smft_jax.data.sources import sources
from smft_jax.lesson import __main__ as lesson_program
from smft_jax.lesson import file as lesson_file
from smft_jax.store import checkpoint
from smft_jax.store import manifest
from tests.fuzz import damage
from tests.support import gguf_files
from tests.support import hf_folders
from tests.support import lessons

ROWS = [
  {'id': 'a', 'title': 'T', 'text': 'Fog.', 'questions': [
    {'question': 'Is it?', 'answers': ['yes', 'so']}
  ]},
  {'id': 2, 'title': 'T', 'context': 'Rain.', 'question': 'Who?',
   'answers': {'text': ['Ada'], 'answer_start': [0]}},
  {'question': 'What?', 'answer': {'value': 'a', 'aliases': ['b']}},
  {'activity_label': 'Tea', 'ctx_a': 'A', 'ctx_b': 'b', 'ctx': 'A b',
   'endings': ['c', 'd'], 'label': '1'},
  {'version': '2', 'data': [{'title': 'T', 'paragraphs': [
    {'context': 'Fog.', 'qas': [{'id': 'x', 'question': 'Q?', 'answers': [
      {'text': 'Fog', 'answer_start': 0}], 'is_impossible': False}]}]}]},
]  # fmt: skip
LINES = b'\n'.join(json.dumps(row).encode() for row in ROWS)
WHOLE = json.dumps(ROWS, indent=1).encode()
CSV = b'id,title,text\n1,T,"Fog, and\n ""rain"""\n2,T,Snow\n'


@pytest.fixture(scope='module')
def place(tmp_path_factory):
  return tmp_path_factory.mktemp('fuzz')


def read_data(file, data):
  file.write_bytes(data)
  for policy in ('refuse', 'skip'):
    for what in ('texts', 'documents', 'questions', 'choices'):
      reader = sources.Reader(problems_lib.Problems(policy))
      damage.is_read_or_refused(
        lambda r=reader, w=what: getattr(r, w)(str(file)), len(data)
      )


@damage.fuzz
@given(
  st.one_of(
    damage.damaged(LINES),
    damage.damaged(WHOLE),
    st.lists(damage.changed(ROWS[0]) | damage.changed(ROWS[1]), max_size=3).map(
      lambda rows: '\n'.join(map(json.dumps, rows)).encode()
    ),
    damage.changed(ROWS, most=6).map(lambda rows: json.dumps(rows).encode()),
    damage.changed(ROWS[4]).map(lambda row: json.dumps(row).encode()),
    st.binary(max_size=200),
  ),
  st.booleans(),
)
def test_json(place, data, is_compressed):
  read_data(place / 'a.json', gzip.compress(data) if is_compressed else data)


@damage.fuzz
@given(damage.damaged(CSV), st.sampled_from(['a.csv', 'a.tsv', 'a.txt']))
def test_tables_and_texts(place, data, name):
  read_data(place / name, data)


@damage.fuzz
@given(damage.damaged(gzip.compress(LINES)))
def test_compressed(place, data):
  read_data(place / 'a.jsonl.gz', data)


@damage.fuzz
@given(st.data())
def test_parquet(place, data):
  pyarrow = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  file = place / 'a.parquet'
  parquet.write_table(pyarrow.Table.from_pylist(ROWS[:1]), file)
  read_data(file, data.draw(damage.damaged(file.read_bytes())))


def header_of(file):
  """The length, the header and the rest of a safetensors file."""
  data = file.read_bytes()
  size = int.from_bytes(data[:8], 'little')
  return data[:8], json.loads(data[8 : 8 + size]), data[8 + size :]


def with_header(header, rest):
  data = json.dumps(header).encode()
  return len(data).to_bytes(8, 'little') + data + rest


def copied(name):
  folder = pathlib.Path(tempfile.mkdtemp())
  shutil.copytree(hf_folders.FOLDER / name, folder, dirs_exist_ok=True)
  return folder


@pytest.fixture(scope='module')
def with_memory(place):
  folder = place / 'memory'
  hf.save_model(hf_folders.memory_model('beside'), folder)
  return folder


@damage.fuzz
@given(
  st.data(), st.sampled_from(['decoder.safetensors', 'memory.safetensors'])
)
def test_safetensors(with_memory, data, name):
  file = with_memory / name
  original = file.read_bytes()
  _, header, rest = header_of(file)
  try:
    file.write_bytes(
      data.draw(
        st.one_of(
          damage.damaged(original, 600),
          damage.changed(header).map(lambda h: with_header(h, rest)),
        )
      )
    )
    damage.is_read_or_refused(
      lambda: hf.load_model(with_memory), 20 * len(original)
    )
  finally:
    file.write_bytes(original)


@damage.fuzz
@given(st.data())
def test_the_description_of_a_memory(with_memory, data):
  file = with_memory / 'config.json'
  original = file.read_bytes()
  settings = json.loads(original)
  settings['smft_memory'] = data.draw(damage.changed(settings['smft_memory']))
  try:
    file.write_text(json.dumps(settings))
    damage.is_read_or_refused(
      lambda: hf.load_model(with_memory), 20 * len(original)
    )
  finally:
    file.write_bytes(original)


@damage.fuzz
@given(st.data(), st.sampled_from(['llama_3', 'qwen2', 'qwen3']))
def test_settings(data, name):
  folder = copied(name)
  try:
    settings = json.loads((folder / 'config.json').read_text())
    settings = data.draw(damage.changed(settings))
    (folder / 'config.json').write_text(json.dumps(settings))
    damage.is_read_or_refused(lambda: hf.load_model(folder), 2**20)
  finally:
    shutil.rmtree(folder)


@pytest.fixture(scope='module')
def tokenizer(place):
  folder = place / 'tokenizer'
  folder.mkdir()
  tokenizers.train_byte_level_bpe(['Fog in Porto.'], 280).write(folder)
  return folder


@damage.fuzz
@given(st.data(), st.sampled_from(['tokenizer.json', 'tokenizer_config.json']))
def test_tokenizers(tokenizer, data, name):
  file = tokenizer / name
  original = file.read_text()
  try:
    changed = data.draw(damage.changed(json.loads(original)))
    file.write_text(json.dumps(changed))
    found = damage.is_read_or_refused(
      lambda: tokenizers.read(tokenizer), len(original)
    )
    if found is not None:
      damage.is_read_or_refused(lambda: found.encode('Fog'), len(original))
  finally:
    file.write_text(original)


@pytest.fixture(scope='module')
def gguf(place):
  file = place / 'model.gguf'
  metadata, tensors = gguf_files.contents_of(hf_folders.FOLDER / 'llama')
  gguf_files.write(file, metadata, tensors)
  return file.read_bytes()


@damage.fuzz
@given(st.data())
def test_gguf(place, gguf, data):
  file = place / 'damaged.gguf'
  file.write_bytes(data.draw(damage.damaged(gguf, 2000)))
  damage.is_read_or_refused(lambda: hf.load_model(file), 20 * len(gguf))


def show(file):
  lesson_program.main(['show', str(file)])


@damage.fuzz
@given(st.data())
def test_lessons(place, data):
  file = place / 'a.safetensors'
  lesson_file.write(file, lessons.make([3, 5]))
  original = file.read_bytes()
  _, header, rest = header_of(file)
  file.write_bytes(
    data.draw(
      damage.damaged(original)
      | damage.changed(header).map(lambda h: with_header(h, rest))
    )
  )
  damage.is_read_or_refused(lambda: show(file), len(original))


@damage.fuzz
@given(st.data())
def test_lessons_that_were_made_to_mislead(place, data):
  file = place / 'b.safetensors'
  made = lessons.make([3, 5])
  metadata, tensors = lesson_file._parts(made)
  about = data.draw(damage.changed(metadata))
  if not isinstance(about, dict):
    return
  about = {
    str(k): v if isinstance(v, str) else json.dumps(v) for k, v in about.items()
  }
  name = data.draw(st.sampled_from(sorted(tensors)))
  tensors[name] = data.draw(
    st.sampled_from(
      [tensors[name], tensors[name][:0], tensors[name] * -7]
      + [tensors[name].astype(np.float64), np.full_like(tensors[name], 2**30)]
    )
  )
  about.pop('digest', None)
  about['digest'] = lesson_file._digest(about, tensors)
  file.write_bytes(safetensors.numpy.save(tensors, about))
  damage.is_read_or_refused(lambda: show(file), 2**16)


@damage.fuzz
@given(st.data())
def test_manifests(place, data):
  folder = pathlib.Path(tempfile.mkdtemp(dir=place))
  like = {'a': jax.numpy.arange(5.0), 'b': jax.numpy.ones((2, 3))}
  checkpoint.save(folder, 3, like, owner={'config': {'x': 1}})
  file = folder / '3' / 'manifest.json'
  contents = json.loads(file.read_text())
  contents.pop('digest')
  contents = data.draw(damage.changed(contents))
  if isinstance(contents, dict):
    contents['digest'] = manifest.digest(contents)
  file.write_text(json.dumps(contents))
  damage.is_read_or_refused(
    lambda: checkpoint.restore_newest(folder, like, {'config': {'x': 1}}),
    2**16,
  )
