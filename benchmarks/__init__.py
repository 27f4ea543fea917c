"""What a call, a load and a worker cost against running in process; `make bench` runs it.

Policy is data: `cases.py` says what is measured, `targets.py` what is promised. How it is measured
is `model_loader_cli.bench`, which `model-loader bench` shares.
"""
