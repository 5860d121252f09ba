"""Do the monitor's remedies help? Failing trainings are changed as their findings advise.

    python -m experiments.gradient_clinic                     all cases, ten minutes
    python -m experiments.gradient_clinic --cases dead deep   some of them

A case is a configuration that fails. It is trained with the monitor; `monitor.remedy` of its findings is
applied to the configuration, as data; and it is trained again, up to three times, until nothing is found.
The score is 1 − loss / loss of the best constant answer, on clean data, held out if the fault is one of
generalization or of labels. Expect that at least nine in ten cases regain a third of the lost score.
"""
