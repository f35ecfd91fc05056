"""What tools/bench_cpu.py measures, a module for each program."""
