"""The benchmark: sepconv and its peers on one network, with the same weights, in turn; and what bounds each layer.

``networks`` says what is run, ``contenders`` on what. ``worker`` is the process that each contender gets, ``processes``
the other end of its pipes, ``method`` how they take turns, ``statistics`` what becomes of the times. ``report`` and
``plot`` show it. ``peaks`` measures what the machine can do at most, ``profile`` holds a network's layers against it.
"""
