"""Collectives and bytes of memory, read off a compiled program."""

import jax
import jax.numpy as jnp
import pytest

from smft_jax.compile import hlo
from smft_jax.compile import traffic

# As XLA for TPUs writes it: an asynchronous gather in three computations, a
# loop to 7, and arrays S(1) outside main memory.
TPU = """
%start (a: s32[4,8]) -> (s32[4,8], s32[4,32]) {
  %a = s32[4,8]{1,0:T(8,128)S(1)} parameter(0)
  %g = s32[4,32]{1,0:T(8,128)} all-gather(%a), replica_groups={{0,1,2,3},{4,5}}
  ROOT %c = (s32[4,8]{1,0:S(1)}, s32[4,32]{1,0:S(1)}) custom-call(%g), \
custom_call_target="AsyncCollectiveStart"
}

%async_collective_fusion.3 (b: s32[4,8]) -> s32[4,32] {
  %b = s32[4,8]{1,0:T(8,128)S(1)} parameter(0)
  ROOT %h = s32[4,32]{1,0:S(1)} all-gather(%b), replica_groups={{0,1,2,3},{4,5}}
}

%done (d: s32[4,8], e: s32[4,32]) -> s32[4,32] {
  %d = s32[4,8]{1,0:T(8,128)S(1)} parameter(0)
  %e = s32[4,32]{1,0:T(8,128)S(1)} parameter(1)
  %i = s32[4,32]{1,0} all-gather(%d), replica_groups={{0,1,2,3},{4,5}}
  ROOT %c2 = s32[4,32]{1,0:S(1)} custom-call(%d, %e, %i), \
custom_call_target="AsyncCollectiveDone"
}

%rows (table: bf16[50,10], ids: s32[3]) -> bf16[3,10] {
  %table = bf16[50,10]{1,0:T(8,128)(2,1)} parameter(0)
  %ids = s32[3]{0:T(128)} parameter(1)
  %bits = bf16[50,10]{1,0} bitcast(%table)
  ROOT %read = bf16[3,10]{1,0:T(8,128)(2,1)S(1)} gather(%bits, %ids)
}

%written (t: bf16[50,10], j: s32[3], u: bf16[3,10]) -> bf16[50,10] {
  %t = bf16[50,10]{1,0:T(8,128)(2,1)} parameter(0)
  %j = s32[3]{0:T(128)} parameter(1)
  %u = bf16[3,10]{1,0:T(8,128)(2,1)S(1)} parameter(2)
  ROOT %s = bf16[50,10]{1,0:T(8,128)(2,1)} scatter(%t, %j, %u), to_apply=%new
}

%body (p: (s32[], bf16[50,10], s32[3])) -> (s32[], bf16[50,10], s32[3]) {
  %p = (s32[]{:T(128)}, bf16[50,10]{1,0}, s32[3]{0}) parameter(0)
  %x = bf16[50,10]{1,0} get-tuple-element(%p), index=1
  %y = s32[3]{0} get-tuple-element(%p), index=2
  %r = bf16[3,10]{1,0:S(1)} fusion(%x, %y), kind=kLoop, calls=%rows
  %w = f32[3,10]{1,0:S(1)} all-reduce(%r), \
replica_groups=mesh['a'=4,'b'=1,'c'=2] {'a':(1)2,'c'}, to_apply=%new
  ROOT %t2 = (s32[], bf16[50,10]{1,0}, s32[3]{0}) tuple(%n, %x, %y)
}

%condition (q: (s32[], bf16[50,10], s32[3])) -> pred[] {
  %q = (s32[]{:T(128)}, bf16[50,10]{1,0}, s32[3]{0}) parameter(0)
  %k = s32[]{:T(128)} constant(7), metadata={op_name="(a)"}
  %v = s32[]{:T(128)} get-tuple-element(%q), index=0
  ROOT %lt = pred[]{:T(512)} compare(%v, %k), direction=LT
}

ENTRY %main (m: bf16[50,10], n: s32[3], o: s32[4,8]) -> bf16[50,10] {
  %m = bf16[50,10]{1,0:T(8,128)(2,1)} parameter(0)
  %n = s32[3]{0:T(128)} parameter(1)
  %o = s32[4,8]{1,0:S(1)} parameter(2)
  %f = (s32[4,8]{1,0:S(1)}, s32[4,32]{1,0:S(1)}) fusion(%o), calls=%start
  %f1 = s32[4,32]{1,0:S(1)} fusion(%o), calls=%async_collective_fusion.3
  %f2 = s32[4,32]{1,0:S(1)} fusion(%o, %f1), calls=%done
  %z = (s32[], bf16[50,10]{1,0}, s32[3]{0}) tuple(%n, %m, %n)
  %l = (s32[], bf16[50,10]{1,0}, s32[3]{0}) while(%z), \
condition=%condition, body=%body, metadata={}
  %part = ((bf16[50,10]{1,0}), bf16[3,10]{1,0:S(1)}, s32[]) slice-start(%m)
  %part2 = bf16[3,10]{1,0:S(1)} slice-done(%part)
  ROOT %last = bf16[50,10]{1,0} fusion(%m, %n, %part2), calls=%written
}
"""


def test_an_asynchronous_collective_counts_once():
  found = traffic.collectives(hlo.parse(TPU), num_devices=8)
  assert sorted((str(c), c.devices, c.times) for c in found) == [
    ('all-gather s32[4,32]', 4, 1),
    ('all-reduce f32[3,10]', 4, 7),
  ]


def test_memory_is_read_by_rows_as_often_as_the_loop_turns():
  row = 10 * 2
  rows = 7 * (3 * row + 3 * 4)
  condition = 7 * (4 + 4 + 1)
  # The slice comes from memory; written are 3 rows, at 3 ids that are read.
  part, written = 3 * row, 3 * 4 + 3 * row
  assert traffic.accessed_bytes(hlo.parse(TPU)) == (
    rows + condition + part + written
  )


def test_sent_bytes_are_those_of_rings():
  def sent(kind, devices):
    return traffic.Collective(
      kind=kind, array='f32[8]', num_bytes=32, devices=devices, times=3
    ).sent_bytes

  assert sent('all-reduce', 4) == 3 * 2 * 32 * 3 / 4
  assert sent('all-gather', 4) == 3 * 32 * 3 / 4
  assert sent('reduce-scatter', 4) == 3 * 32 * 3
  assert sent('collective-permute', 4) == 3 * 32
  assert sent('all-reduce', 1) == 0


@pytest.mark.parametrize(
  ('groups', 'devices'),
  [
    ('replica_groups=[2,4]<=[8]', 4),
    ('replica_groups=[2,4]<=[4,2]T(1,0)', 4),
    ('replica_groups={{0,2,4},{1,3,5}}', 3),
    ("replica_groups=mesh['a'=4,'b'=2] {'b'}", 2),
    ('replica_groups={}', 8),
  ],
)
def test_how_many_take_part(groups, devices):
  program = hlo.parse(
    'ENTRY %main (p: f32[3]) -> f32[3] {\n'
    f'  ROOT %y = f32[3]{{0}} all-reduce(%p), channel_id=1, {groups}\n}}'
  )
  [found] = traffic.collectives(program, num_devices=8)
  assert found.devices == devices


def compiled(function, *arrays):
  text = jax.jit(function, donate_argnums=0).lower(*arrays).compile().as_text()
  return hlo.parse(text)


def test_a_program_of_this_machine_reads_and_writes_rows_only():
  ids = jnp.array([3, 5])

  def accessed(num_rows):
    program = compiled(
      lambda table, ids: table.at[ids].multiply(2 * table[ids]),
      jnp.ones((num_rows, 7)),
      ids,
    )
    return traffic.accessed_bytes(program)

  assert accessed(1009) == accessed(8011) < 1009


def test_a_loop_counts_every_turn():
  def accessed(turns):
    def loop(x):
      return jax.lax.fori_loop(0, turns, lambda _, x: jnp.sin(x) @ x, x)

    return traffic.accessed_bytes(compiled(loop, jnp.ones((61, 61))))

  five, seven, nine = map(accessed, (5, 7, 9))
  assert nine - seven == seven - five > 2 * 61 * 61 * 4
