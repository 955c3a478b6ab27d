"""The installed commands: a wheel has copies of the scripts here, a checkout that is installed in place has the scripts."""

from pathlib import Path

if not Path(__file__).with_name("train.py").is_file():
    __path__ = [str(Path(__file__).parents[2])]
