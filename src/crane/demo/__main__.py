"""Run the demo."""

from __future__ import annotations

from crane.demo.main import main

if __name__ == "__main__":
    main()
