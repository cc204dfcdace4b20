"""A worker: performs the workloads in many tasks or threads, while its calls are cancelled and it is forked."""
