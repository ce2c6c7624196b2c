// Package integration tests whole servers: the real binary, started from a Corefile in network
// namespaces, with clients and peers that we didn't write. The scenarios are the files below
// testdata; README.md says how one reads. The package has no code outside its tests.
package integration
