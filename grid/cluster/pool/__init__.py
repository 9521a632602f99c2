"""Stages that have a worker each, as trials of Ray Tune: cells, teachers' logits, teachers that are given."""
