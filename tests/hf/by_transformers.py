"""Runs an exported folder as someone does who has torch and transformers only.

  python -I tests/hf/by_transformers.py FOLDER PROMPTS.npz OUT.npz AGAIN

Reads `tokens` and `mask`, [B, L] with padding on the left, and `count`. Writes
`logits` [B, L, T] and two times [B, count], decoded greedily: `answers`, with
the key-value cache of `transformers`, and `without_cache`. AGAIN is the folder
that `transformers` saves.
"""

import sys


def main(folder: str, prompts: str, out: str, again: str) -> None:
  """Loads the model, calls it once, decodes twice, and saves it."""
  for name in ('flax', 'jax', 'smft_jax'):  # whatever is installed beside torch
    sys.modules[name] = None
  import numpy as np
  import torch
  import transformers

  model, report = transformers.AutoModelForCausalLM.from_pretrained(
    folder,
    trust_remote_code=True,
    dtype=torch.float32,
    output_loading_info=True,
  )
  assert not any(report.values()), report
  given = np.load(prompts)
  tokens = torch.tensor(given['tokens'], dtype=torch.long)
  mask = torch.tensor(given['mask'], dtype=torch.long)

  def decode(use_cache):
    decoded = model.generate(
      tokens,
      attention_mask=mask,
      max_new_tokens=int(given['count']),
      do_sample=False,
      use_cache=use_cache,
      eos_token_id=None,
      pad_token_id=0,
    )
    return decoded[:, tokens.shape[1] :].numpy()

  with torch.no_grad():
    logits = model(tokens, attention_mask=mask).logits.numpy()
  np.savez_compressed(
    out, logits=logits, answers=decode(True), without_cache=decode(False)
  )
  model.save_pretrained(again)


if __name__ == '__main__':
  main(*sys.argv[1:])
