"""hlik and its peers on the same data: time, memory and estimates side by side.

``make bench`` prepares an environment for the peers and runs everything; ``python -m benchmarks --help`` says how to
run a part. Each fit is a process of its own with one thread, and the systems take turns. Failed fits are kept.

===================  ==================================================================================
``cases.py``         the cases: response family, covariates, random terms, where the data come from
``simulate.py``      the simulated data
``real.py``          the real data
``store.py``         data on disk, one binary file a column, that Python and R can read
``systems.py``       the systems: how each is started, what it cannot do, its settings
``workers/``         one program a system: read, fit, print one line of JSON
``process.py``       one worker as a process: threads, limits of time and memory
``records.py``       the table of all runs, `results/runs.csv`
``startup.py``       cold start: the demonstration's fit against ``import pymc``
``report.py``        `results/benchmarks.md` from the records
``figures.py``       `results/growth.png` from the records
===================  ==================================================================================
"""
