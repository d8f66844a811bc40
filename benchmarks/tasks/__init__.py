"""What runs in workers: functions that can be imported by name, in modules that load little else.

Every module here is imported by the workers of all libraries, so it must be light; ``workloads`` stays in the parent.
"""
