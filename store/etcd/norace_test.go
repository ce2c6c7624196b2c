//go:build !race

package etcd

const effort = 1
