"""Does the monitor recognise faults, without false alarms? It watches training programs of known outcome.

    python -m experiments.monitor_bed                        all programs, five seeds each: 40 minutes
    python -m experiments.monitor_bed --programs dead_15 --seeds 0 --verbose
    python -m experiments.monitor_bed --curves 60            random loss curves of 21 families: a minute

Each program is trained twice from the same seed: without the monitor, to measure by its outcome whether the
run is faulty or healthy, and with it. The label is measured and not assumed, because the same deep ReLU
network dies with one seed and learns with the next. Expect that at least 98 % of the faults are recognised
and at most 1 % of the healthy runs have a false alarm.
"""
