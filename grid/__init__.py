"""The grid: what to run (spec, plan, identity), where results live (store, records), and running it (stages, run).

Nothing here imports Ray but `grid.cluster`; planning imports neither Ray nor torch.
"""
