"""Start the app: `robviz app`, with the same options."""

import sys

from robviz.cli import main

if __name__ == "__main__":
    main(["app", *sys.argv[1:]])
