//go:build race

package etcd

// effort divides the number of changes in the tests with faults. The race detector makes a change take five times as
// long: members, nodes and forwarders are all in this process.
const effort = 4
