"""A store in an etcd cluster: for processes on more than one machine."""
