"""Can what the monitor advises be done, and does it help? Sick configurations, treated in-process.

    python -m experiments.gradient_clinic                        all patients, some minutes
    python -m experiments.gradient_clinic --patients dead deep   some of them

A patient is a configuration that fails. It is trained and watched; `monitor.remedy` of what is found is
applied to the configuration, as data; it is trained anew, up to three times, until nothing is found. What
counts is the outcome: the share of what the best constant answer loses that the model saves, before and
after, on clean data, held out where the fault is one of generalisation or of labels.
"""
