"""Real processes, real servers, every fault of docs/concepts/hinge.md, and a checker over what was recorded.

    make faults SECONDS=600 ARGS="--seed 7"

- ``application``: what the processes run. ``worker``: a process that runs it, loads it and records everything.
- ``history``: the records. ``checker``: what is wrong in them. ``report``: an anomaly told with what was around it.
- ``proxy``: the network between a process and its servers. ``points``: where a process can be made to die or stop.
- ``driver``: servers, links and workers of one run. ``process``: a worker as the driver sees it. ``ending``: what is
  left in the end. ``schedule``: the faults, and random sequences of them.
"""
