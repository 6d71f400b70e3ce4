"""GGUF files of small models, written from Hugging Face folders.

They are written as llama.cpp's converter does, by its rules spelled out here.
"""

import json
import pathlib

import gguf
import numpy as np
import safetensors.numpy

TYPES = gguf.GGMLQuantizationType
_NAMES = {
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  'lm_head': 'output',
  'input_layernorm': 'attn_norm',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'post_attention_layernorm': 'ffn_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
}


def contents_of(folder):
  """Returns metadata and tensors as they are before they are quantised."""
  settings = json.loads((folder / 'config.json').read_text())
  arch = settings['model_type']
  rope = settings.get('rope_parameters') or settings
  metadata = {
    'general.architecture': arch,
    f'{arch}.block_count': settings['num_hidden_layers'],
    f'{arch}.context_length': 512,
    f'{arch}.embedding_length': settings['hidden_size'],
    f'{arch}.feed_forward_length': settings['intermediate_size'],
    f'{arch}.attention.head_count': settings['num_attention_heads'],
    f'{arch}.attention.head_count_kv': settings['num_key_value_heads'],
    f'{arch}.attention.layer_norm_rms_epsilon': settings['rms_norm_eps'],
    f'{arch}.rope.freq_base': rope['rope_theta'],
  }
  if 'head_dim' in settings:
    metadata[f'{arch}.attention.key_length'] = settings['head_dim']
  tensors = {}
  for file in sorted(folder.glob('model*.safetensors')):
    for name, tensor in safetensors.numpy.load_file(file).items():
      if arch == 'llama' and name.endswith(('q_proj.weight', 'k_proj.weight')):
        tensor = interleave(tensor, settings['head_dim'])
      tensors[name_of(name)] = tensor.astype(np.float32)
  return metadata, tensors


def tokenizer_entries(tokenizer, **changes):
  """Metadata of a byte-level tokenizer, and a token of a user's own.

  Args:
    tokenizer: The tokenizer.
    **changes: Entries that are set, or left out if None.
  """
  model = json.loads(tokenizer.inner.to_str())['model']
  tokens = [*sorted(model['vocab'], key=model['vocab'].get), '<think>']
  special = {tokenizer.pad, tokenizer.bos, tokenizer.eos}
  kinds = {'<think>': 4} | dict.fromkeys(special, 3)
  found = {
    'model': 'gpt2',
    'pre': 'gpt-2',
    'tokens': tokens,
    'token_type': [kinds.get(token, 1) for token in tokens],
    'merges': [' '.join(merge) for merge in model['merges']],
    'bos_token_id': tokenizer.bos_id,
    'eos_token_id': tokenizer.eos_id,
    'padding_token_id': tokenizer.pad_id,
    **changes,
  }
  return {
    f'tokenizer.ggml.{key}': value
    for key, value in found.items()
    if value is not None
  }


def interleave(matrix, head_dim):
  """Puts the second half of each head's rows between those of the first."""
  half, rows = head_dim // 2, []
  for first in range(0, len(matrix), head_dim):
    for i in range(half):
      rows += [matrix[first + i], matrix[first + half + i]]
  return np.stack(rows)


def write(path, metadata, tensors, types=()):
  """Writes a GGUF.

  Args:
    path: The file.
    metadata: Entries by key; floats are stored as float32.
    tensors: Arrays by name, float32 ones as they are.
    types: Type of tensors that are quantised, by the end of their names.
  """
  writer = gguf.GGUFWriter(path, metadata['general.architecture'])
  for key, value in metadata.items():
    if key != 'general.architecture':
      _add(writer, key, value)
  for name, tensor in tensors.items():
    for end, kind in dict(types).items():
      if name.endswith(end):
        writer.add_tensor(name, quantised(tensor, kind), raw_dtype=kind)
        break
    else:
      writer.add_tensor(name, tensor)
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()
  return pathlib.Path(path)


def quantised(tensor, kind):
  return gguf.quants.quantize(tensor, kind)


def rounded(tensor, kind):
  """What is left of a tensor once it was quantised."""
  return gguf.quants.dequantize(quantised(tensor, kind), kind)


def _add(writer, key, value):
  if isinstance(value, bool):
    writer.add_bool(key, value)
  elif isinstance(value, int):
    writer.add_uint32(key, value)
  elif isinstance(value, float):
    writer.add_float32(key, value)
  elif isinstance(value, str):
    writer.add_string(key, value)
  else:
    writer.add_array(key, value)


def name_of(name):
  stem, kind = name.rsplit('.', 1)
  if not stem.startswith('model.layers.'):
    return f'{_NAMES[stem]}.{kind}'
  _, _, layer, part = stem.split('.', 3)
  return f'blk.{layer}.{_NAMES[part]}.{kind}'
