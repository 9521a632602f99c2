import sys

# Before all other imports: an older Python fails in one of them, and would say nothing of what is wrong.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.stderr.write(f"error: kd-grid needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}\n")
    sys.exit(2)

from analysis.cli import command

command()
