"""Threads that sleep while they wait, read when torch loads; asserts of shared modules that say what differs."""

import os

import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest.register_assert_rewrite("deliveries", "dump_lines", "evaluations", "refusals", "trainers", "vllm_echo")
