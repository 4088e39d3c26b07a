module kvist/compat/etcdctl

go 1.26
