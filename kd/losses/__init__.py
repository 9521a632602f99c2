"""Distillation losses: pure functions of logits, one family a file, always computed in float32."""
