"""Decoders of the Llama family with a memory, for Hugging Face transformers.

smft_jax (Apache-2.0) copies this file into the folders that it exports. It
needs torch and transformers 5, nothing else; smft_jax itself never imports it.

  from transformers import AutoModelForCausalLM
  model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)

A memory layer adds what a token reads to the output of its block's FFN, which
is all zeros where the memory took its place. The token's query finds k of N
slots per head by product keys (arXiv:1907.05242); their values are summed with
the softmax of their scores as weights. With a quorum only slots of one lesson
are read, and none below the quorum. `smft_memory` in config.json says the rest.

Shapes: T tokens, D model dim, N slots, n = sqrt(N) sub-keys per half, V value
dim, H heads, K key dim, C = K / 2, k slots per head, A = H * k accesses.
"""

import functools
import math

import torch
from torch import nn
import transformers

# Tokens that read at once: gathered rows are [T, A, V].
_BLOCK = 256


def _parameter(*shape):
  # Float32 in a model of any dtype, as it decides which slots are read.
  return nn.Parameter(torch.zeros(shape, dtype=torch.float32))


def _unit(x, eps=1e-6):
  """Divides x by its root mean square along the last axis."""
  return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


class Table(nn.Module):
  """Values of slots, and with a quorum the lesson that taught each of them."""

  def __init__(self, sizes, value_dim):
    super().__init__()
    num_slots, dtype = sizes['num_slots'], getattr(torch, sizes['value_dtype'])
    self.values = nn.Parameter(torch.zeros(num_slots, value_dim, dtype=dtype))
    # The weights of each head sum to one.
    self.quorum = sizes['quorum'] * sizes['num_heads']
    if self.quorum:
      lessons = torch.zeros(num_slots, dtype=torch.int32)  # 0 is untaught
      self.register_buffer('lessons', lessons)

  def forward(self, slots_TxA, weights_TxA):
    """Sums weighted values, [T, V]."""
    slots_TxA = slots_TxA.to(self.values.device)
    weights_TxA = weights_TxA.to(self.values.device)
    if self.quorum:
      weights_TxA = self._of_one_lesson(self.lessons[slots_TxA], weights_TxA)
    rows_TxAxV = self.values[slots_TxA].float()
    read_TxV = torch.einsum('ta,tav->tv', weights_TxA, rows_TxAxV)
    return read_TxV.to(self.values.dtype)

  def _of_one_lesson(self, lessons_TxA, weights_TxA):
    """Keeps the weights of the lesson with the largest share."""
    taught_TxA = weights_TxA.where(lessons_TxA > 0, 0)
    same_TxAxA = lessons_TxA[:, :, None] == lessons_TxA[:, None, :]
    share_TxA = taught_TxA[:, None, :].where(same_TxAxA, 0).sum(-1)
    lesson_Tx1 = lessons_TxA.gather(1, share_TxA.argmax(-1, keepdim=True))
    is_read_TxA = (lessons_TxA == lesson_Tx1) & (share_TxA >= self.quorum)
    return taught_TxA.where(is_read_TxA, 0)


class Memory(nn.Module):
  """A memory layer; reads its own table, or one that layers share."""

  def __init__(self, description, model_dim):
    super().__init__()
    self.sizes = sizes = description['sizes']
    heads, half = sizes['num_heads'], sizes['key_dim'] // 2
    value_dim = sizes['value_dim'] or model_dim
    self.query = _parameter(model_dim, heads, 2 * half)
    subkeys_per_half = math.isqrt(sizes['num_slots'])
    self.subkeys = _parameter(heads, 2, subkeys_per_half, half)
    if sizes['qk_norm']:
      self.query_scale = _parameter(heads, 2, half)
    if sizes['gated']:
      self.gate = _parameter(model_dim, value_dim)
      self.out = _parameter(value_dim, model_dim)
      if description['placement'] == 'beside':
        self.output_gate = _parameter(model_dim)
    if not description['shares_table']:
      self.table = Table(sizes, value_dim)

  def search(self, x_TxD):
    """Finds the slots that x reads and their weights, both [T, A]."""
    k, subkeys_Hx2xnxC = self.sizes['k'], self.subkeys.float()
    heads, _, n, half = subkeys_Hx2xnxC.shape
    with torch.autocast(x_TxD.device.type, enabled=False):
      queries = torch.einsum('td,dhk->thk', x_TxD.float(), self.query.float())
      queries_TxHx2xC = queries.reshape(-1, heads, 2, half)
      if self.sizes['qk_norm']:
        queries_TxHx2xC = _unit(queries_TxHx2xC) * self.query_scale.float()
        subkeys_Hx2xnxC = _unit(subkeys_Hx2xnxC) * half**-0.5
      scores_TxHx2xn = torch.einsum(
        'thpc,hpnc->thpn', queries_TxHx2xC, subkeys_Hx2xnxC
      )
      # The k best slots are among the sums of the k best of each half.
      best_TxHx2xk, ids_TxHx2xk = scores_TxHx2xn.topk(k)
      first, second = best_TxHx2xk.unbind(2)
      sums = (first[..., :, None] + second[..., None, :]).flatten(-2)
      scores_TxHxk, winners = sums.topk(k)
      first, second = ids_TxHx2xk.unbind(2)
      slots = (first[..., :, None] * n + second[..., None, :]).flatten(-2)
      slots_TxHxk = slots.gather(-1, winners)
      return slots_TxHxk.flatten(1), scores_TxHxk.softmax(-1).flatten(1)

  def forward(self, x, table):
    """Reads a table, [..., D] -> [..., D]."""
    blocks = x.reshape(-1, x.shape[-1]).split(_BLOCK)
    read = torch.cat([table(*self.search(block)) for block in blocks]).to(x)
    y = read.reshape(*x.shape[:-1], -1)
    if self.sizes['gated']:
      gate = nn.functional.silu(x @ self.gate.to(x.dtype))
      y = (y * gate) @ self.out.to(x.dtype)
    if hasattr(self, 'output_gate'):
      y = y * self.output_gate.to(x.dtype)
    return y


def _add_memory(mlp, inputs, output, table):
  """Forward hook of an FFN."""
  return output + mlp.memory(inputs[0], table or mlp.memory.table)


def _add_memories(model, config):
  """Adds the memory that config.json describes to a decoder."""
  description, dim, table = config.smft_memory, config.hidden_size, None
  if description['shares_table']:
    sizes = description['sizes']
    table = model.table = Table(sizes, sizes['value_dim'] or dim)
  for layer in description['layers']:
    mlp = model.model.layers[layer].mlp
    mlp.memory = Memory(description, dim)
    mlp.register_forward_hook(functools.partial(_add_memory, table=table))


class LlamaWithMemory(transformers.LlamaForCausalLM):
  """Llama 2 and 3, and models of that layout."""

  def __init__(self, config):
    super().__init__(config)
    _add_memories(self, config)


class Qwen2WithMemory(transformers.Qwen2ForCausalLM):
  """Qwen2 and Qwen2.5."""

  def __init__(self, config):
    super().__init__(config)
    _add_memories(self, config)


class Qwen3WithMemory(transformers.Qwen3ForCausalLM):
  """Qwen3."""

  def __init__(self, config):
    super().__init__(config)
    _add_memories(self, config)
