"""Start the app: the same as `robviz app`."""

from robviz.app import main

if __name__ == "__main__":
    main()
