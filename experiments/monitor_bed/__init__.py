"""Does the monitor see what is wrong, and nothing where nothing is? Training programs of known outcome.

    python -m experiments.monitor_bed                        all programs, five seeds each
    python -m experiments.monitor_bed --programs dead_13 --seeds 0 --verbose
    python -m experiments.monitor_bed --seeds 0 --early      after how many steps is it found?
    python -m experiments.monitor_bed --curves 60            random loss curves of 21 kinds, alone

Each program is trained twice from the same seed: without a monitor, which decides by its outcome whether
the run is a sick one, and with one, which says what it found. What an architecture promises is no label:
the same deep ReLU network dies in one seed and learns in the next.
"""
