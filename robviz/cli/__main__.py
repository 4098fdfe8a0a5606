"""Run the command line as `python -m robviz.cli`, for instance under torchrun."""

from robviz.cli import main

main()
