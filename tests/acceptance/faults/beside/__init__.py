"""Programs beside the application, which know nothing of diptych, and the ledger of what anybody has changed.

``ledger``: triggers of the application's own that write down each change of an open item or owner, with its values,
for the checker. ``statements``: what is done to these rows. ``program``: a process that does it, and records when.
"""
