"""Every name of Ray's that is no public interface of it, under a plain one. No other module of this program reads, or
replaces, what Ray keeps to itself.

Another version of Ray may have them no longer. So `names` looks for each at the start of a launch, and
what only an instance has is looked for when the first one is seen. Importing these modules imports nothing of Ray: what
a call needs is paid for by whoever calls it.
"""
