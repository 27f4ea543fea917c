"""The protections around a worker: one file a mechanism, the values in `policy`.

`lockdown` holds the order in which they are entered. This package needs nothing but the standard
library and the C library, and it knows neither the broker nor the worker.
"""
