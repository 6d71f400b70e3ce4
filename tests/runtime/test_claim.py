"""One run at a time: who has a claim, and who takes it over."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from smft_jax.runtime import claim as claim_lib

TAKE = """
import pathlib, sys, time
from smft_jax.runtime import claim
print(claim.Claim(pathlib.Path(sys.argv[1])).take() or 'taken', flush=True)
time.sleep(float(sys.argv[2]))
"""


def in_a_process(path, seconds=60):
  process = subprocess.Popen(
    [sys.executable, '-c', TAKE, str(path), str(seconds)],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline().strip() == 'taken'
  return process


@pytest.fixture
def elsewhere(tmp_path):
  """The claim of a process on another machine, of which only files are seen."""
  path = tmp_path / 'claim'
  path.mkdir()
  holder = {'host': 'far', 'pid': os.getpid(), 'token': 'a', 'machine': 'b'}
  (path / 'holder.json').write_text(json.dumps(holder))
  return path


def test_a_claim_is_held_by_one_and_given_up(tmp_path):
  one, other = (claim_lib.Claim(tmp_path / 'a' / 'claim') for _ in range(2))
  assert one.take() == ''
  assert f'process {os.getpid()} on ' in other.take()
  assert other.is_alive
  one.release()
  assert not (tmp_path / 'a' / 'claim').exists()
  assert other.take() == ''
  one.release()  # of a claim that it no longer has
  assert one.take() != ''
  other.release()
  assert not list((tmp_path / 'a').iterdir())


def test_who_does_not_have_a_claim_cannot_give_it_up(tmp_path, monkeypatch):
  one, other = (claim_lib.Claim(tmp_path / 'claim') for _ in range(2))
  one.take()

  def rename(*unused):
    raise AssertionError('another process moved the claim')

  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'rename', rename)
    other.release()
  one.release()


def test_a_claim_that_cannot_be_written_is_not_left(tmp_path, monkeypatch):
  def write_text(path, text):
    raise OSError(28, 'No space left on device', str(path))

  mine = claim_lib.Claim(tmp_path / 'claim')
  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, 'write_text', write_text)
    with pytest.raises(OSError, match='No space'):
      mine.take()
  assert not list(tmp_path.iterdir())
  assert mine.take() == ''
  mine.release()


def test_a_claim_outlives_its_process_only_until_someone_asks(tmp_path):
  process = in_a_process(tmp_path / 'claim')
  mine = claim_lib.Claim(tmp_path / 'claim')
  assert f'process {process.pid} on ' in mine.take()
  assert mine.is_alive
  process.kill()
  process.communicate()
  assert (tmp_path / 'claim').exists()
  assert mine.take() == ''
  mine.release()


def test_another_process_with_the_number_of_a_dead_one_is_not_the_holder(
  tmp_path,
):
  first = claim_lib.Claim(tmp_path / 'claim')
  first.take()
  file = tmp_path / 'claim' / 'holder.json'
  holder = json.loads(file.read_text())
  file.write_text(json.dumps(holder | {'began': '1', 'token': 'other'}))
  first._released.set()
  second = claim_lib.Claim(tmp_path / 'claim')
  assert second.take() == ''
  second.release()


def test_elsewhere_signs_of_life_are_what_counts(elsewhere, monkeypatch):
  now = [1000.0]
  monkeypatch.setattr(claim_lib.time, 'monotonic', lambda: now[0])
  mine = claim_lib.Claim(elsewhere)
  file = elsewhere / 'holder.json'
  assert mine.take() == f'process {os.getpid()} on far'
  assert not mine.is_alive
  for told in (7e9, 3.0):  # a clock that is ahead, and one that jumps back
    now[0] += claim_lib.DEAD_S - 1
    os.utime(file, (told, told))
    assert mine.take() != ''
    assert mine.is_alive
  now[0] += claim_lib.DEAD_S - 1
  assert mine.take() != ''
  assert not mine.is_alive
  now[0] += 2
  assert mine.take() == ''
  mine.release()


def test_a_claim_whose_holder_never_wrote_its_name(tmp_path, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(claim_lib.time, 'monotonic', lambda: now[0])
  (tmp_path / 'claim').mkdir()
  mine = claim_lib.Claim(tmp_path / 'claim')
  assert mine.take() != ''
  now[0] += claim_lib.DEAD_S + 1
  assert mine.take() == ''
  mine.release()


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
  monkeypatch.setattr(claim_lib, '_BEAT_S', 0.01)
  mine = claim_lib.Claim(tmp_path / 'claim')
  mine.take()
  file = tmp_path / 'claim' / 'holder.json'
  times = set()
  for _ in range(500):
    times.add(file.stat().st_mtime_ns)
    if len(times) > 3:
      break
    time.sleep(0.01)
  mine.release()
  assert len(times) > 3


def test_of_many_that_ask_at_once_one_gets_it(tmp_path):
  claims = [claim_lib.Claim(tmp_path / 'claim') for _ in range(16)]
  answers = []
  threads = [
    threading.Thread(target=lambda c=c: answers.append(c.take()))
    for c in claims
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert answers.count('') == 1
  for one in claims:
    one._released.set()


def test_who_was_taken_over_ends(tmp_path):
  path = tmp_path / 'claim'
  code = TAKE.replace('print(', 'claim._BEAT_S = 0.05\nprint(', 1)
  process = subprocess.Popen(
    [sys.executable, '-c', code, str(path), '60'],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline().strip() == 'taken'
  holder = json.loads((path / 'holder.json').read_text())
  changed = holder | {'token': 'other', 'pid': 7, 'host': 'far'}
  (path / 'holder.json').write_text(json.dumps(changed))
  _, said = process.communicate(timeout=60)
  assert process.returncode == 1
  assert 'was taken over by process 7 on far' in said
