"""Document frequencies: counted as a set would, and only for their model."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from smft_jax.data import batches
from smft_jax.store import checksum
from smft_jax.training import background
from smft_jax.training import count
from smft_jax.training import forward
from smft_jax.training import method as method_lib
from tests.support import decoders

N = 49
READS = 2 * decoders.MEMORY.accesses_per_token  # of a token
PROVENANCE = {'model': 'abc', 'document': 'sequence', 'num_batches': 2, 'k': 2}


@pytest.fixture(autouse=True, scope='module')
def quickly(quick_compilation):
  """Nothing here runs often enough to be optimized."""


@pytest.fixture(scope='module')
def model():
  """Two memory layers that share the slots, as graphdef and parameters."""
  return nnx.split(
    decoders.make_model(
      num_layers=2, memory=decoders.MEMORY, memory_layers=(0, 1)
    )
  )


def make_stream():
  """Two batches of three sequences; one of the sequences is only padding."""
  stream = []
  for seed, lengths in enumerate(((7, 2, 5), (3, 0, 7))):
    tokens = np.array(decoders.tokens_of(3, 7, seed=seed))
    mask = np.arange(7) < np.array(lengths)[:, None]
    stream.append(batches.Batch(tokens, mask, mask.astype(np.float32)))
  return stream


def recount(model, document):
  """The frequencies by way of Python sets."""
  frequency = [0] * N
  compute = jax.jit(forward.loss_and_accesses, static_argnums=0)
  for batch in make_stream():
    _, accesses = compute(*model, batch)
    read = [set() for _ in range(3)]
    for slot_ids in accesses.slot_ids:
      for row, column in np.argwhere(batch.mask):
        read[row] |= set(np.asarray(slot_ids)[row, column].tolist())
    for slots in read if document == 'sequence' else [set.union(*read)]:
      for slot in slots:
        frequency[slot] += 1
  return frequency


@pytest.mark.parametrize(
  # One of six sequences is only padding.
  ('document', 'number'),
  [('sequence', 5), ('batch', 2)],
)
def test_frequencies_are_those_of_a_plain_recount(model, document, number):
  done = []
  counted = count.background(
    *model, make_stream(), document=document, on_batch=lambda: done.append(1)
  )
  assert counted.document_frequency.tolist() == recount(model, document)
  assert float(counted.accesses.sum()) == READS * sum((7, 2, 5, 3, 0, 7))
  read = np.asarray(counted.accesses) > 0
  assert np.array_equal(read, np.asarray(counted.document_frequency) > 0)
  assert counted.document_frequency.dtype == jnp.float32
  assert float(counted.num_documents) == number
  assert len(done) == 2


def test_documents_are_added_one_batch_at_a_time():
  slot_ids = jnp.array([[[1, 2], [2, 3]], [[3, 3], [0, 0]]])
  mask = jnp.array([[True, True], [True, False]])
  found = background.empty(5)
  for _ in range(2):
    found = background.add(found, slot_ids, mask)
  nothing = background.add(found, slot_ids, jnp.zeros_like(mask))
  for statistics in (found, nothing):
    assert statistics.document_frequency.tolist() == [0, 2, 2, 4, 0]
    assert statistics.accesses.tolist() == [0, 2, 4, 6, 0]
    assert float(statistics.num_documents) == 4
  whole = background.add(found, slot_ids, document='batch')
  assert whole.document_frequency.tolist() == [1, 3, 3, 5, 0]
  assert float(whole.num_documents) == 5


def test_a_background_that_is_none_is_refused(model):
  with pytest.raises(ValueError, match=r"'sequence' or 'batch', got 'page'"):
    count.background(*model, make_stream(), document='page')
  with pytest.raises(ValueError, match='the background corpus is empty'):
    count.background(*model, [])


def test_fingerprint_tells_parameters_apart(model):
  _, params = model
  same = jax.tree.map(jnp.copy, params)
  marks = {checksum.fingerprint(params), checksum.fingerprint(same)}
  assert len(marks) == 1
  leaves, structure = jax.tree.flatten(params)
  for place in (0, len(leaves) // 2, len(leaves) - 1):
    # The least change there is: one number, by its last bit.
    number = np.array(leaves[place])
    number.flat[-1] = np.nextafter(number.flat[-1], np.float32(9))
    changed = [*leaves[:place], jnp.asarray(number), *leaves[place + 1 :]]
    marks.add(checksum.fingerprint(jax.tree.unflatten(structure, changed)))
  a, b = jnp.zeros(3), jnp.ones(3)
  marks |= {checksum.fingerprint({'a': x, 'b': y}) for x, y in ((a, b), (b, a))}
  assert len(marks) == 6


def make_statistics(seed=0):
  frequency = np.random.default_rng(seed).integers(0, 9, N)
  return method_lib.Background(
    jnp.asarray(frequency, jnp.float32),
    jnp.float32(9),
    jnp.arange(N, dtype=jnp.float32),
  )


@pytest.fixture
def path(tmp_path):
  """A saved file."""
  background.save(tmp_path / 'b.npz', make_statistics(), PROVENANCE)
  return tmp_path / 'b.npz'


def load(path, provenance):
  """Reads and checks statistics, as runs do."""
  found, stored = background.read(path)
  background.check(path, stored, provenance)
  return background.to_floats(found)


def test_what_is_saved_is_loaded(path):
  loaded = load(path, PROVENANCE)
  for one, other in zip(loaded, make_statistics(), strict=True):
    np.testing.assert_array_equal(one, other)
    assert one.dtype == other.dtype
  assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize('key', PROVENANCE)
def test_another_provenance_is_refused_by_name(path, key):
  with pytest.raises(
    ValueError, match=f'counted with {key} = .*this run has 7'
  ):
    load(path, PROVENANCE | {key: 7})
  without = {k: v for k, v in PROVENANCE.items() if k != key}
  with pytest.raises(ValueError, match=f'counted with {key} = '):
    load(path, without)
  background.save(path, make_statistics(), without)
  with pytest.raises(ValueError, match=f'counted with {key} = None'):
    load(path, PROVENANCE)


def test_a_damaged_file_is_refused(path):
  whole = path.read_bytes()
  middle = 2 * len(whole) // 5  # among the frequencies
  flipped = bytes([whole[middle] ^ 1])
  for damaged in (
    b'',
    whole[:3],
    whole[: len(whole) // 2],
    whole[:-1],
    whole[:middle] + flipped + whole[middle + 1 :],
    b'no archive at all',
  ):
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match='not a readable background') as error:
      load(path, PROVENANCE)
    assert '\n' not in str(error.value)
  np.savez(path, document_frequency=np.zeros(N))
  with pytest.raises(ValueError, match='not a readable background'):
    load(path, PROVENANCE)


def test_an_interrupted_save_leaves_what_was_there(path, monkeypatch):
  before = path.read_bytes()

  def interrupted(file, **arrays):
    file.write(before[:31])
    raise KeyboardInterrupt

  monkeypatch.setattr(np, 'savez', interrupted)
  with pytest.raises(KeyboardInterrupt):
    background.save(path, make_statistics(seed=1), PROVENANCE)
  assert path.read_bytes() == before
