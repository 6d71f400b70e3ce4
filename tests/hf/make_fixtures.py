"""Makes the checkpoints of tests/fixtures/hf, with the logits of each.

  pip install torch transformers && python -m tests.hf.make_fixtures

Made by transformers 5.24 and torch 2.14. Weights are random, and large enough
that every part of a model changes the logits; prompts are long enough that a
wrong rotation does.
"""

from tests.support import repository

FOLDER = repository.ROOT / 'tests' / 'fixtures' / 'hf'
PROMPTS, LENGTH = 2, 120

SIZES = {
  'vocab_size': 29,
  'hidden_size': 16,
  'intermediate_size': 23,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'num_key_value_heads': 2,
  'max_position_embeddings': 512,
}
# Of the four frequencies of a head one is fast, one between, two are slow.
LLAMA_3 = {
  'rope_type': 'llama3',
  'rope_theta': 500.0,
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 32,
}


def main() -> None:
  """Writes a folder for each checkpoint."""
  import numpy as np
  import torch
  import transformers

  tokens = np.random.default_rng(0).integers(
    0, SIZES['vocab_size'], (PROMPTS, LENGTH)
  )

  def logits_of(folder, dtype):
    # Loaded, as a model that is cast has its rotary frequencies cast as well.
    model = transformers.AutoModelForCausalLM.from_pretrained(
      folder, dtype=dtype
    )
    with torch.no_grad():
      return model(torch.tensor(tokens)).logits.float().numpy()

  def make(name, config, dtype=torch.float32, shard='1GB'):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
      for parameter in model.parameters():
        # Norms and biases round one, matrices by the size of what enters.
        width = 0.7 * parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.2
        parameter.normal_(parameter.ndim < 2, width)
    folder = FOLDER / name
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    (folder / 'generation_config.json').unlink()
    logits = {
      str(d).removeprefix('torch.'): logits_of(folder, d)
      for d in {torch.float32, dtype}
    }
    np.savez_compressed(folder / 'logits.npz', tokens=tokens, **logits)

  llama = transformers.LlamaConfig(**SIZES)
  make('llama', llama)
  make('llama_bf16', llama, torch.bfloat16)
  make(
    'llama_3',
    transformers.LlamaConfig(
      **SIZES, head_dim=8, rope_parameters=LLAMA_3, tie_word_embeddings=True
    ),
    shard='16KB',
  )
  make('qwen2', transformers.Qwen2Config(**SIZES, tie_word_embeddings=True))
  make('qwen3', transformers.Qwen3Config(**SIZES, head_dim=6))


if __name__ == '__main__':
  main()
