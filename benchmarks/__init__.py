"""Speed, measured: nbpar and its peers, calls alternated in one run, every result checked; never a test's assertion.

``make bench`` runs all of it and writes ``RESULTS.md`` beside this file. General layout: ``run`` is the command line
and the order of things, ``peers`` one adapter for each library, ``tasks`` what runs in workers, ``workloads`` what is
compared and what was asked of it, ``studies`` what has a table of its own (start-up, growth), ``timing`` the
alternated calls, ``costs`` CPU and memory in a process of each library's own, ``report`` and ``plot`` the pages.
"""
