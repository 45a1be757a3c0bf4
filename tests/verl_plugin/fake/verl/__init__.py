"""What vcppo sees of verl from outside, without verl: a main that reads words, logs steps, saves and ends."""

__version__ = "fake"
