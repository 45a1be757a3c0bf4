"""Threads that sleep while they wait, whatever else the machine does; read when torch loads."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")
