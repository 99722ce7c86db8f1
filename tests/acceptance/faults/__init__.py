"""Real processes, real servers, every fault of docs/concepts/hinge.md, and a checker over what was recorded.

    make faults SECONDS=600 ARGS="--seed 7"

- ``models``: rows and documents. ``application``: what the processes run, with ``open_items``, which change by
  sessions and statements. ``commands``, ``queries``: what they are sent. ``worker``: a process that runs it,
  ``load``: what it does there, and ``asking``: what it asks, and records.
- ``beside``: a program that changes open items and knows nothing of diptych; the ledger of what anybody has changed.
- ``history``: the records. ``timelines``: the states of each key, and from when on queries have to show them.
  ``checker``: what is wrong in a history. ``staleness``: for how long queries missed what programs did. ``report``:
  an anomaly told with what was around it.
- ``proxy``: the network between a process and its servers. ``points``: where a process can be made to die or stop.
- ``driver``: servers, links and workers of one run. ``process``: a worker as the driver sees it. ``ending``: what is
  left in the end. ``stories``: the faults. ``schedule``: random sequences of them.
"""
