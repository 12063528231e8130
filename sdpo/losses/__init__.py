"""Differentiable functions on tensors, and the plain arithmetic around them.

chunked      projected_loss: hidden states × output matrix → loss and gradients, one chunk of logits at a time
linear       linear_divergence: the whole pass built on it
vocabulary   vocabulary_pass: log-probs, entropies and divergence of rows of logits; chooses plain PyTorch or Triton
kernels      the Triton form of that pass
divergence   distribution-level distillation: forward, reverse, generalised Jensen-Shannon; full vocabulary or top-K
credit       sampled-token and sequence-level distillation
policy       clipped policy gradients (GRPO, GSPO, CISPO), reference KL estimators
importance   ratio clip and truncated importance weight
logits       log-probs of tokens, entropy, linear mix of logits
aggregate    per-token weights from global counts
advantages   group-relative advantages

Every loss here is per token, [n]; `loss = Σ w·ℓ` with the weights of `aggregate` is the only reduction.  Import from
the modules: `aggregate` and `advantages` work on NumPy arrays without importing torch.
"""
