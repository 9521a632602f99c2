"""The only code that imports Ray: the session, teachers (Ray Train), teacher logits (tasks), cells (Ray Tune)."""
